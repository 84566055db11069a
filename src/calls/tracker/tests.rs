//! What a third party can see of a dialog, case by case. Each scenario is a script of messages; see [`scene`].

mod floods;
mod forks;
mod holds;
mod loss;
mod midcall;
mod offers;
mod races;
mod random;
mod scene;
mod strays;
mod targets;
mod timers;
