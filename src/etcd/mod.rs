//! etcd: one client per endpoint, a deadline on every call, streams that are opened again.
