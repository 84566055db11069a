//! The resources that outlive each run of an instance's calls part: bound ports, the fence, and the handles that cut a
//! failed run off from the relay and the store.

use super::calls_error::CallsError;
use super::ground;
use super::relay::Relay;
use super::sockets::RecoveryPort;
use super::tap::{self, HepPort};
use crate::calls::store::StoreHandle;
use crate::config;
use crate::recovery::media::kernel::{KernelRelay, RelayError};
use crate::recovery::permitted::Ground;
use crate::sync::Locked as _;
use crate::vip::fence::Fence;
use crate::vip::nfnl::Family;
use crate::vip::nft::watch::TableWatch;
use crate::vip::rawudp::RawUdp;
use crate::wire::capture::Capture;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::runtime::Handle;
use tracing::warn;

/// Delay between a report of a deleted table and the check for it, because our own changes also replace tables.
const MEND: Duration = Duration::from_millis(100);
/// Pause before the next try to restore tables.
const AGAIN: Duration = Duration::from_secs(1);

/// The handles through which a run changes things outside of itself.
#[derive(Default)]
struct Ends {
    relay: Option<Arc<Relay>>,
    store: Option<StoreHandle>,
}

/// The resources of one instance's calls part.
pub(super) struct Footing {
    instance: String,
    /// Where audio may come from and go to.
    pub(super) ground: Ground,
    pub(super) fence: Fence,
    pub(super) port: RecoveryPort,
    pub(super) hep: Option<HepPort>,
    /// The encryption key of stored calls.
    pub(super) key: Vec<u8>,
    /// Further keys that stored calls may use while the key changes.
    pub(super) accepted_keys: Vec<Vec<u8>>,
    /// The runtime of etcd's connections and of the relay's changes: a run's own runtime may hang.
    pub(super) core: Handle,
    ends: Mutex<Ends>,
}

impl Footing {
    /// `inherited`: a former process ended while this node was master, and the right is still valid. Its tables then
    /// stay in force, together with the audio of its calls. Otherwise the fence closes, and the server stays off the
    /// wire until this node is master.
    ///
    /// # Errors
    /// Every failure on this host that would also fail a run. The check happens here, so that a refused start leaves
    /// nothing behind.
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

    /// No code panics while it holds the lock, and the state is consistent after each statement. So a poisoned lock is
    /// still good.
    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.locked()
    }

    /// Connects a run to its relay and store.
    pub(super) fn connect(&self, relay: &Arc<Relay>, store: &StoreHandle) {
        *self.ends() = Ends { relay: Some(Arc::clone(relay)), store: Some(store.clone()) };
    }

    /// Cuts a failed run off: relay and store no longer obey it. The kernel's tables stay in force, together with the
    /// audio of calls.
    pub(super) fn cut(&self) {
        let Ends { relay, store } = std::mem::take(&mut *self.ends());
        if let Some(relay) = relay {
            relay.end();
        }
        if let Some(store) = store {
            store.stop_writing();
        }
    }

    /// The relay of the current run, if any.
    pub(super) fn relay(&self) -> Option<Arc<Relay>> {
        self.ends().relay.clone()
    }

    /// Removes a former run's relay table while no run has a relay.
    pub(super) async fn clear_relay(&self) -> Result<(), RelayError> {
        KernelRelay::new(&self.instance, &self.ground).clear().await
    }

    /// Restores our tables whenever somebody deletes them. Ends only if the table watch fails.
    pub(super) async fn mend(self: Arc<Self>) {
        let instance = &self.instance;
        let relay = KernelRelay::new(instance, &self.ground);
        let own = [self.fence.table_name(), relay.table_name()].map(|name| (Family::Inet, name.to_owned()));
        let mut watch = match TableWatch::open(own) {
            Ok(watch) => watch,
            Err(e) => {
                return warn!(
                    instance,
                    "cannot watch nftables, so fence and audio relay are not restored if another program deletes \
                     them: {e}"
                );
            }
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
                    return warn!(
                        instance,
                        "cannot watch nftables any more, so fence and audio relay are not restored if another \
                         program deletes them: {e}"
                    );
                }
            }
        }
    }

    /// Restores the tables. Returns whether they are complete.
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
                    "another program deleted {what} from nftables; restored. If `nft flush ruleset` did this, let \
                     the firewall's reload delete only its own tables"
                ),
                Err(e) => {
                    warn!(instance = self.instance, "cannot restore {what}: {e}; retrying");
                    whole = false;
                }
            }
        }
        whole
    }
}
