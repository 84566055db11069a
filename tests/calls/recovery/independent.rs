//! User agents that nobody here wrote, behind a B2BUA that nobody here wrote.

use super::alone;
use super::sipp::{self, End};
use anyhow::{Result, ensure};
use lab::asterisk::Asterisk;
use lab::ground::Ground;
use lab::wait;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Both parties of two calls are SIPp, whose scenarios check the re-INVITE and hang up from either side.
#[test]
fn independent_user_agents_are_re_invited_and_hang_up() {
    let _alone = alone();
    let run = |ground: &mut Ground<Asterisk>| -> Result<()> {
        let (p1, p2) = (ground.lan.host("p1")?, ground.lan.host("p2")?);
        let mut parties = vec![sipp::called(p2, 2900, End::IsHungUp)?, sipp::called(p2, 2901, End::HangsUp)?];
        parties.push(sipp::caller(p1, 1900, 2900, End::HangsUp)?);
        parties.push(sipp::caller(p1, 1901, 2901, End::IsHungUp)?);
        ground.wait_stored(2)?;
        ground.cut_power()?;
        for party in &mut parties {
            let status = wait::until("SIPp to end", SOON, || party.ended().ok().flatten().ok_or_else(|| party.tail()))?;
            ensure!(status.success(), "{} ended with {status}: {}", party.log.display(), party.tail());
        }
        let outcomes = ground.outcomes(2, SOON)?;
        ensure!(outcomes["recovered"] == 2, "{outcomes}");
        Ok(())
    };
    let start = |lan: &lab::lan::Lan, host: &lab::lan::Host| -> Result<_> {
        let mut asterisk = Asterisk::start(lan, host)?;
        asterisk.wait_ready()?;
        let pidfile = asterisk.pidfile.clone();
        Ok((asterisk, pidfile))
    };
    Ground::new(|lan, host, _| start(lan, host)).and_then(|g| g.run("sipp", run)).unwrap();
}
