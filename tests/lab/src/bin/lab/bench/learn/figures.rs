//! Median, minimum and maximum of repeated measurements.

use serde_json::{Value, json};

/// Repeated measurements of one thing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(Vec<f64>);

impl Figures {
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The quantile at this fraction; 0 without measurements.
    pub(crate) fn at(&self, part: f64) -> f64 {
        let mut all = self.0.clone();
        all.sort_by(f64::total_cmp);
        let Some(last) = all.len().checked_sub(1) else { return 0.0 };
        let place = part.clamp(0.0, 1.0) * last as f64;
        // Interpolates between two neighbours.
        let (low, high) = (all[place.floor() as usize], all[place.ceil() as usize]);
        low + (high - low) * place.fract()
    }

    pub(crate) fn median(&self) -> f64 {
        self.at(0.5)
    }

    pub(crate) fn json(&self, decimals: i32) -> Value {
        json!({ "median": rounded(self.median(), decimals), "min": rounded(self.at(0.0), decimals), "max": rounded(self.at(1.0), decimals) })
    }
}

/// A number with so many decimals.
pub(crate) fn rounded(value: f64, decimals: i32) -> Value {
    let factor = 10f64.powi(decimals);
    let value = (value * factor).round() / factor;
    if decimals <= 0 { json!(value as i64) } else { json!(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let mut f = Figures::default();
        assert_eq!(f.median(), 0.0);
        for v in [9.0, 1.0, 4.0, 2.0] {
            f.add(v);
        }
        assert_eq!((f.at(0.0), f.median(), f.at(1.0)), (1.0, 3.0, 9.0));
        assert_eq!(f.json(0).to_string(), r#"{"max":9,"median":3,"min":1}"#);
    }
}
