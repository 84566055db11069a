//! The engine against phones that strictly follow RFC 3261 and RFC 3264, over a network that loses, duplicates and
//! reorders.

mod former;
mod gone;
mod half_over;
mod heard;
mod late;
mod left_alone;
mod limits;
mod listening;
mod modes;
mod moves;
mod offers;
mod phone;
mod random_calls;
mod resume;
mod said_before;
mod scenarios;
mod strangers;
mod unlike;
mod world;

use phone::{Answer, Phone};
use world::World;
