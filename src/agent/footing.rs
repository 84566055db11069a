//! What the runs of an instance's calls part stand on, and what outlives each of them: bound ports, the fence, and the ends by which
//! a run that failed is cut off from relay and store.

use super::calls_error::CallsError;
use super::ground;
use super::relay::Relay;
use super::sockets::RecoveryPort;
use super::tap::{self, HepPort};
use crate::calls::store::StoreHandle;
use crate::config;
use crate::recovery::media::kernel::{KernelRelay, RelayError};
use crate::recovery::permitted::Ground;
use crate::vip::fence::Fence;
use crate::vip::nfnl::Family;
use crate::vip::nft::watch::TableWatch;
use crate::vip::rawudp::RawUdp;
use crate::wire::capture::Capture;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tracing::warn;

/// From the news that a table of ours may be gone until it is looked for: our own changes replace tables, too.
const MEND: Duration = Duration::from_millis(100);
/// Pause before tables that could not be put back are tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The ends by which a run acts on what is not its own.
#[derive(Default)]
struct Ends {
    relay: Option<Arc<Relay>>,
    store: Option<StoreHandle>,
}

/// See the head of this file.
pub(super) struct Footing {
    instance: String,
    /// Where audio may come from and go to.
    pub(super) ground: Ground,
    pub(super) fence: Fence,
    pub(super) port: RecoveryPort,
    pub(super) hep: Option<HepPort>,
    /// The key that stored calls may be encrypted with.
    pub(super) key: Vec<u8>,
    /// Keys that stored calls may be under beside it, during a change of key.
    pub(super) accepted_keys: Vec<Vec<u8>>,
    /// Where etcd's connections and the relay's changes live: a run's own runtime may stop turning.
    pub(super) core: Handle,
    ends: Mutex<Ends>,
}

impl Footing {
    /// `inherited`: a process before this one left while this node was master, and its right still runs. Then its tables stay in
    /// force, with the audio of the calls that it carried. Else the server is closed in: until this node is master, it stays off the
    /// wire.
    ///
    /// # Errors
    /// What a run would fail for as well for reasons of this host is tried here, so that a refused start leaves nothing behind.
    pub(super) async fn open(
        config: &config::Config,
        instance: &config::Instance,
        sip: &config::Sip,
        inherited: bool,
    ) -> Result<Self, CallsError> {
        let vips: Vec<IpAddr> = instance.addresses.iter().map(ipnet::IpNet::addr).collect();
        let port = RecoveryPort::bind(&vips, sip.recovery_port)?;
        let hep = tap::hep_port(config, sip, &vips)?;
        drop(Capture::open_for(&instance.interface, &sip.ports, &vips).map_err(tap::TapError::from)?);
        drop(RawUdp::open(&instance.interface)?);
        let read = |file: &PathBuf| std::fs::read(file).map_err(|error| CallsError::Key { file: file.clone(), error });
        let key = read(&config.node.key_file)?;
        let accepted_keys = config.node.accept_key_files.iter().map(read).collect::<Result<_, _>>()?;
        let ground = ground::of(config, sip, &vips);
        let relay = KernelRelay::new(&instance.name, &ground);
        let fence = Fence::new(&instance.name, &sip.ports, sip.media_ports);
        if !inherited {
            relay.clear().await?;
            fence.closed().await?;
        }
        Ok(Self {
            instance: instance.name.clone(),
            ground,
            fence,
            port,
            hep,
            key,
            accepted_keys,
            core: Handle::current(),
            ends: Mutex::default(),
        })
    }

    /// No code panics while it holds the lock, and the state is whole after each statement; so a poisoned lock is still good.
    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run acts on these from now on.
    pub(super) fn connect(&self, relay: &Arc<Relay>, store: &StoreHandle) {
        *self.ends() = Ends { relay: Some(Arc::clone(relay)), store: Some(store.clone()) };
    }

    /// A run has failed: neither relay nor store obeys it any more. What is in force in the kernel stays, with the audio of calls.
    pub(super) fn cut(&self) {
        let Ends { relay, store } = std::mem::take(&mut *self.ends());
        if let Some(relay) = relay {
            relay.end();
        }
        if let Some(store) = store {
            store.stop_writing();
        }
    }

    /// The relay, while a run has one.
    pub(super) fn relay(&self) -> Option<Arc<Relay>> {
        self.ends().relay.clone()
    }

    /// Removes the relay's table when no run has a relay: what a run before left in force.
    pub(super) async fn clear_relay(&self) -> Result<(), RelayError> {
        KernelRelay::new(&self.instance, &self.ground).clear().await
    }

    /// Puts back those of our tables that somebody deletes. Ends only if the kernel does not tell.
    pub(super) async fn mend(self: Arc<Self>) {
        let instance = &self.instance;
        let relay = KernelRelay::new(instance, &self.ground);
        let own = [self.fence.table_name(), relay.table_name()].map(|name| (Family::Inet, name.to_owned()));
        let mut watch = match TableWatch::open(own) {
            Ok(watch) => watch,
            Err(e) => return warn!(instance, "tables of nftables that somebody deletes will not be put back: {e}"),
        };
        loop {
            match watch.next().await {
                Ok(_) => {
                    tokio::time::sleep(MEND).await;
                    while !self.mended().await {
                        tokio::time::sleep(AGAIN).await;
                    }
                }
                Err(e) => {
                    return warn!(instance, "tables of nftables that somebody deletes are no longer put back: {e}");
                }
            }
        }
    }

    /// Puts the tables back; whether they are whole.
    async fn mended(&self) -> bool {
        let relay = self.relay();
        let relayed = async {
            match &relay {
                Some(relay) => relay.renew().await.map_err(|e| e.to_string()),
                None => Ok(false),
            }
        };
        let mut whole = true;
        for (what, done) in [
            ("the fence of the server's ports", self.fence.renew().await.map_err(|e| e.to_string())),
            ("the audio relay", relayed.await),
        ] {
            match done {
                Ok(false) => {}
                Ok(true) => warn!(
                    instance = self.instance,
                    "somebody deleted {what} from nftables; it was put back. `nft flush ruleset` does that: let the firewall's reload \
                     delete its own tables only"
                ),
                Err(e) => {
                    warn!(instance = self.instance, "{what} could not be put back: {e}; trying again");
                    whole = false;
                }
            }
        }
        whole
    }
}
