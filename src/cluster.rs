//! Decides who is master: the pure election, its heartbeat, and the driver that runs both.

pub mod driver;
pub mod election;
pub mod heartbeat;
mod lease;
pub mod record;
pub mod settings;
mod stalls;
pub mod status;
mod store;

pub use driver::{
    Cluster, ClusterError, ClusterEvent, ElectionResources, Enforcer, Fitness, ForgetError, NoEnforcer, SwitchoverError,
};
pub use election::{Candidate, Cause, HoldKind, Inherited, MasterChange, Role};
pub use status::{ClusterStatus, InstanceStatus, NodeStatus};
