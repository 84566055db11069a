//! What a payload type means, as far as it decides whether one phone understands the other's packets. Pure.
//!
//! The relay changes no payload. So both legs must have the same number for the same encoding, and the same of those
//! parameters (`a=fmtp`) that change the packets or that the receiver cannot see in them:
//!
//! | encoding | parameter | without it |
//! |---|---|---|
//! | AMR, AMR-WB | `octet-align`, `crc`, `robust-sorting`, `interleaving` | RFC 4867 section 4: other layouts of the payload, which look alike |
//! | H264 | `packetization-mode` | RFC 6184 section 6: a receiver of mode 0 knows no fragments |
//! | iLBC | `mode` | RFC 3952 section 5: frames of 20 or 30 ms, and 30 as soon as one side wants that |
//! | G7221 | `bitrate` | RFC 5577 section 5: other lengths of frames, which no header tells |
//!
//! All others do not count. In AMR each frame names its own mode, every decoder knows all of them, and the phones' own
//! requests (CMR) pass the relay, so `mode-set` limits what a phone asks for, not what it understands. Opus names its
//! channels in each packet, and every decoder takes both (RFC 7587 section 6.1: `stereo` is a preference).

use crate::sip::sdp::Media;

/// A payload type with its meaning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::recovery) struct Codec {
    /// The payload type, as written.
    pub(in crate::recovery) format: Vec<u8>,
    /// Encoding, clock rate and channels in lower case.
    pub(in crate::recovery) encoding: String,
    packing: String,
}

/// Formats without speech. They alone are no common codec.
const HELPERS: [&str; 4] = ["telephone-event/", "cn/", "red/", "ulpfec/"];

impl Codec {
    pub(in crate::recovery) fn is_speech(&self) -> bool {
        !HELPERS.iter().any(|h| self.encoding.starts_with(h))
    }

    /// Key presses as RTP events (RFC 4733).
    pub(in crate::recovery) fn is_keys(&self) -> bool {
        self.encoding.starts_with(HELPERS[0])
    }
}

/// Encodings compare without case, and `/1` (one channel) is the default (RFC 8866 section 6.6).
fn normal(encoding: &[u8]) -> String {
    let text = String::from_utf8_lossy(encoding).to_ascii_lowercase();
    text.strip_suffix("/1").map(str::to_owned).unwrap_or(text)
}

fn encoding(m: &Media<'_>, format: &[u8]) -> String {
    m.encoding(format).map(normal).unwrap_or_default()
}

/// The payload types of an answer that mean the same in the offer, in the answer's order.
pub(super) fn agreed(offer: &Media<'_>, answer: &Media<'_>) -> Vec<Codec> {
    let codec = |format: &&[u8]| {
        let encoding = encoding(answer, format);
        let known = offer.formats.contains(format) && self::encoding(offer, format) == encoding;
        let packing = known.then(|| packing(&encoding, offer.fmtp(format), answer.fmtp(format))).flatten()?;
        Some(Codec { format: format.to_vec(), encoding, packing })
    };
    answer.formats.iter().filter_map(codec).collect()
}

/// What a payload type means in one description.
pub(in crate::recovery) fn meaning(m: &Media<'_>, format: &[u8]) -> Codec {
    let encoding = encoding(m, format);
    let fmtp = m.fmtp(format);
    Codec { format: format.to_vec(), packing: packing(&encoding, fmtp, fmtp).unwrap_or_default(), encoding }
}

/// The parameters that matter. `None` if offer and answer contradict each other, so that nobody knows what is sent.
fn packing(encoding: &str, offer: Option<&[u8]>, answer: Option<&[u8]>) -> Option<String> {
    let (offer, answer) = (offer.unwrap_or_default(), answer.unwrap_or_default());
    let same = |of: &dyn Fn(&[u8]) -> String| Some(of(offer)).filter(|value| *value == of(answer));
    let value = |fmtp: &[u8], name: &str, default: &str| parameter(fmtp, name).unwrap_or_else(|| default.to_owned());
    match encoding.split('/').next().unwrap_or_default() {
        "amr" | "amr-wb" => same(&|fmtp| {
            let extras = ["crc", "robust-sorting", "interleaving"].map(|name| value(fmtp, name, "0"));
            // RFC 4867 section 8.1: each of the others implies octet-align.
            let aligned = value(fmtp, "octet-align", "0") == "1" || extras.iter().any(|value| value != "0");
            format!("{aligned} {}", extras.join(" "))
        }),
        "h264" => same(&|fmtp| value(fmtp, "packetization-mode", "0")),
        "ilbc" => {
            let both_20 = [offer, answer].iter().all(|fmtp| value(fmtp, "mode", "30") == "20");
            Some(if both_20 { "20" } else { "30" }.to_owned())
        }
        // The parameter is mandatory. Of a side that leaves it out, the other side's value is the only one.
        "g7221" => match (parameter(offer, "bitrate"), parameter(answer, "bitrate")) {
            (Some(a), Some(b)) if a != b => None,
            (a, b) => Some(a.or(b).unwrap_or_default()),
        },
        _ => Some(String::new()),
    }
}

/// The value of a parameter: `name=value; name=value`, names in any case.
fn parameter(fmtp: &[u8], name: &str) -> Option<String> {
    String::from_utf8_lossy(fmtp).split(';').find_map(|part| {
        let (key, value) = part.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_ascii_lowercase())
    })
}
