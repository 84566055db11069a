//! Port ranges as people write them: `"10000-20000"`.

use serde::{Deserialize, Deserializer};

pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<(u16, u16), D::Error> {
    let text = String::deserialize(d)?;
    let range = text.split_once('-').and_then(|(a, b)| Some((a.trim().parse().ok()?, b.trim().parse().ok()?)));
    match range {
        Some((first, last)) if 0 < first && first < last => Ok((first, last)),
        _ => Err(serde::de::Error::custom(format!(
            "{text:?} is not a port range: write it like \"10000-20000\", the lower port first"
        ))),
    }
}
