//! The engine against phones that are strict about RFC 3261 and RFC 3264, over a network that loses, doubles and reorders.

mod modes;
mod offers;
mod phone;
mod scenarios;
mod world;

use phone::{Answer, Phone};
use world::World;
