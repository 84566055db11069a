//! Durations as people write them: `"100ms"`, `"3s"`, `"1m 30s"`.

use serde::{Deserialize, Deserializer};
use std::time::Duration;

pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(d)?;
    humantime::parse_duration(&text).map_err(|e| {
        serde::de::Error::custom(format!("{text:?} is not a duration ({e}): write it like \"100ms\" or \"3s\""))
    })
}
