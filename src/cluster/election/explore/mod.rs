//! Exhaustive exploration of small clusters on the real state machine.

pub(super) mod canon;
mod choices;
mod items;
mod search;
mod stages;
mod store;
mod world;

use choices::Kinds;
use search::{Plan, search, tell};
use stages::Stage;

fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().and_then(|s| s.parse().ok()).unwrap_or(default)
}

#[test]
fn probe() {
    for stage in Stage::ALL {
        for nodes in [2, 3] {
            let at = std::time::Instant::now();
            let start = stage.world(nodes, true, None);
            let plan = Plan {
                faults: number("KEEPCALL_EXPLORE_FAULTS", 1) as u8,
                ticks: number("KEEPCALL_EXPLORE_HORIZON", 8),
                kinds: Kinds::ALL,
                limit: 2_000_000,
            };
            let f = search(&start, plan);
            println!("{stage:?} {nodes}: {:?} states {} steps {} complete {} {:?}", at.elapsed(), f.states, f.steps, f.complete, f.reached);
            if let Some(b) = f.bad {
                println!("{}", tell(&start, &b));
                panic!("two holders");
            }
        }
    }
}
