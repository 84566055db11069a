//! Keeping calls: plan -> media, re-INVITEs -> bridge.

pub mod media;
