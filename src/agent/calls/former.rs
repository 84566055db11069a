//! The calls that this node's server still believes in after the address has gone to another node.

use super::{CallsSide, Role};
use crate::calls::model::Call;
use crate::cluster::{Cluster, ClusterStatus};
use crate::config::Mode;
use crate::os::clock;
use crate::pbx::former_calls::{Action, News};
use crate::pbx::request::Request;
use crate::time::Time;
use crate::vip::fence::{Fence, FenceState};
use tracing::{info, warn};

/// What proves that the server's BYEs cannot leave this host.
#[derive(Clone)]
pub(super) struct Proof {
    pub(super) cluster: Cluster,
    pub(super) instance: String,
    pub(super) node: String,
}

impl Proof {
    /// Whether another node is master, and the fence is closed.
    async fn holds(&self, fence: &Fence) -> bool {
        // A fence that is being opened is open: the state waits for a change in progress.
        elsewhere(&self.cluster.status(), &self.instance, &self.node) && fence.state().await == FenceState::Closed
    }
}

fn elsewhere(status: &ClusterStatus, instance: &str, node: &str) -> bool {
    let of_instance = status.instances.iter().find(|i| i.name == instance);
    of_instance.is_some_and(|i| {
        i.role == crate::cluster::Role::Backup && i.master.as_deref().is_some_and(|master| master != node)
    })
}

/// Call-ID and local tag of each leg that this node's server has itself.
fn own_legs<'a>(calls: impl Iterator<Item = &'a Call>, node: &str) -> Vec<(&'a [u8], &'a [u8])> {
    let legs = calls.filter(|call| call.node == node).flat_map(|call| &call.legs);
    legs.filter(|leg| !leg.carried).map(|leg| (&*leg.call_id, &*leg.local_tag)).collect()
}

impl CallsSide {
    /// This node has lost the addresses. Before custody learns of it.
    pub(super) fn server_is_former(&mut self, now: Time) {
        // Without a connection nobody could ever ask the server.
        if self.custody.role() != Role::Master || !self.ears.may_ask_server() {
            return;
        }
        // The next master may have stored the calls as its own already. Then the tracker still knows them.
        let followed: Vec<Call> = self.table.calls().collect();
        let calls = self.custody.stored().values().chain(&followed);
        self.former.handle_dropped(own_legs(calls, &self.node), now);
    }

    async fn may_hang_up(&self) -> bool {
        let permitted = self.mode.is_some_and(|mode| mode != Mode::Observe);
        permitted && self.custody.role() == Role::Backup && self.proof.holds(&self.footing.fence).await
    }

    /// Carries out the decisions about former calls.
    pub(super) async fn settle_former(&mut self) {
        while let Some(action) = self.former.poll_action() {
            match action {
                Action::Confirm => {
                    let yes = self.may_hang_up().await;
                    self.former.handle_confirmed(yes, clock::now());
                }
                Action::Connect => self.ears.look_at_server(),
                // A master's connection is not this one.
                Action::Disconnect => {
                    if self.custody.role() == Role::Backup {
                        self.ears.ask_server(false);
                    }
                }
                Action::Ask(request @ Request::HangUp { .. }) => {
                    if self.may_hang_up().await {
                        self.ears.request(request);
                    } else {
                        self.former.handle_confirmed(false, clock::now());
                    }
                }
                Action::Ask(request) => self.ears.request(request),
                Action::Tell(news) => self.tell_former(&news),
            }
        }
    }

    fn tell_former(&self, news: &News) {
        let instance = &self.instance;
        match news {
            News::Begun => info!(instance, "hanging up the calls that the server of this backup still believes in"),
            News::Done => info!(instance, "the server of this backup has none of the former calls any more"),
            News::Left(former) => warn!(
                instance,
                left = former.left,
                unknown = former.unknown,
                "the server of this backup still believes in former calls; end them at the server, or restart it"
            ),
        }
    }
}
