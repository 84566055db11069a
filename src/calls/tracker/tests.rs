//! What a third party can see of a dialog, case by case. Each scenario is a script of messages; see [`scene`].

mod forks;
mod holds;
mod loss;
mod midcall;
mod offers;
mod races;
mod random;
mod scene;
mod targets;
mod timers;
