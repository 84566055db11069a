//! The names of all keys in etcd. docs/architecture.md says what each holds and who writes it.

/// Builds the keys of one cluster, under `/keepcall/<cluster>/`.
#[derive(Clone, Debug)]
pub struct Keys {
    root: String,
}

impl Keys {
    /// The keys of this cluster.
    #[must_use]
    pub fn new(cluster: &str) -> Self {
        Self { root: format!("/keepcall/{cluster}/") }
    }

    /// Key that pauses the cluster.
    #[must_use]
    pub fn paused(&self) -> String {
        format!("{}paused", self.root)
    }

    /// Prefix of all node keys.
    #[must_use]
    pub fn nodes(&self) -> String {
        format!("{}nodes/", self.root)
    }

    /// Key of one node.
    #[must_use]
    pub fn node(&self, name: &str) -> String {
        format!("{}nodes/{name}", self.root)
    }

    /// Prefix of the keys that each node writes at registration.
    #[must_use]
    pub fn runs(&self) -> String {
        format!("{}runs/", self.root)
    }

    /// Key that a node writes at each registration, in the same transaction as its node key and without a lease. It
    /// proves a registration even after the node key is gone again.
    #[must_use]
    pub fn run(&self, name: &str) -> String {
        format!("{}runs/{name}", self.root)
    }

    /// Key of an instance's record.
    #[must_use]
    pub fn record(&self, instance: &str) -> String {
        self.of(instance, "record")
    }

    /// Key of an instance's sign of life.
    #[must_use]
    pub fn alive(&self, instance: &str) -> String {
        self.of(instance, "alive")
    }

    /// Key of a node's ticket for an instance.
    #[must_use]
    pub fn ticket(&self, instance: &str, node: &str) -> String {
        self.of(instance, &format!("tickets/{node}"))
    }

    /// Prefix of an instance's calls.
    #[must_use]
    pub fn calls(&self, instance: &str) -> String {
        self.of(instance, "calls/")
    }

    /// Key of the epoch that may write an instance's calls.
    #[must_use]
    pub fn writer(&self, instance: &str) -> String {
        self.of(instance, "writer")
    }

    /// Key of an instance's mode, if an operator has set one. It is a prefix of [`Keys::modes`].
    #[must_use]
    pub fn mode(&self, instance: &str) -> String {
        self.of(instance, "mode")
    }

    /// Prefix of the keys in which each node reports the mode that it obeys.
    #[must_use]
    pub fn modes(&self, instance: &str) -> String {
        self.of(instance, "modes/")
    }

    /// Prefix of an instance's changes of master.
    #[must_use]
    pub fn history(&self, instance: &str) -> String {
        self.of(instance, "history/")
    }

    /// Prefix of requests to an instance's master.
    #[must_use]
    pub fn wishes(&self, instance: &str) -> String {
        self.of(instance, "wishes/")
    }

    /// Prefix of the master's answers.
    #[must_use]
    pub fn answers(&self, instance: &str) -> String {
        self.of(instance, "answers/")
    }

    fn of(&self, instance: &str, what: &str) -> String {
        format!("{}instances/{instance}/{what}", self.root)
    }
}
