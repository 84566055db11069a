//! The virtual addresses: adding, announcing, removing, and fencing the server of a node that does not hold them.
