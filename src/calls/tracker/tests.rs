//! What a third party can see of a dialog, case by case. Each scenario is a script of messages; see [`scene`].

mod forks;
mod offers;
mod scene;
