mod build;
mod calls;
mod cases;
mod damage;
mod doc;
mod files;
mod halves;
mod media;
mod servers;
mod sources;

use super::report::{Call, Report};
use super::*;
use build::Shot;

/// Inspects these bytes as a capture file.
fn run(bytes: &[u8], settings: &InspectSettings) -> Result<Report, InspectError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    inspect(file.path(), settings)
}

fn told(shots: Vec<Shot>) -> Report {
    run(&build::file(&build::paced(shots, 100)), &InspectSettings::default()).unwrap()
}

fn with_vip(shots: Vec<Shot>, vip: &str) -> Report {
    let settings = InspectSettings { vips: vec![vip.parse().unwrap()], ..InspectSettings::default() };
    run(&build::file(&build::paced(shots, 100)), &settings).unwrap()
}

/// The only call of a report.
fn only(r: &Report) -> &Call {
    let [call] = r.calls.as_slice() else { panic!("{} calls: {:#?}", r.calls.len(), r.calls) };
    call
}
