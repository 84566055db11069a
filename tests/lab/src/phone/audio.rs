//! A tone of its own for each phone, as RTP with G.711 µ-law, and an ear that recognises the other party's tone.

use std::f64::consts::TAU;

/// Samples in a packet: 20 ms at 8 kHz.
const SAMPLES: usize = 160;
/// Samples in one judgement: one second distinguishes tones that are 1 Hz apart.
const WINDOW: usize = 8000;
/// A pure µ-law tone has more than 0.99 of its energy at its frequency. Anything else in the window lowers that part.
const PURE: f64 = 0.8;

/// The frequency of a phone's tone, unique among 1,500 pairs of phones. `side` is 0 for callers and 1 for called
/// parties.
pub(crate) fn tone_of(index: usize, side: usize) -> f64 {
    let n = u32::try_from((index * 2 + side) % 3000).unwrap_or(0);
    f64::from(300 + n)
}

/// Makes a phone's packets.
pub(crate) struct Mouth {
    tone: f64,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    phase: f64,
}

impl Mouth {
    pub(crate) const fn new(tone: f64, ssrc: u32) -> Self {
        Self { tone, ssrc, sequence: 0, timestamp: 0, phase: 0.0 }
    }

    pub(crate) fn packet(&mut self) -> Vec<u8> {
        let mut p = Vec::with_capacity(12 + SAMPLES);
        p.extend([0x80, 0]);
        p.extend(self.sequence.to_be_bytes());
        p.extend(self.timestamp.to_be_bytes());
        p.extend(self.ssrc.to_be_bytes());
        for _ in 0..SAMPLES {
            #[allow(clippy::cast_possible_truncation)] // within +-8000 by construction
            let s = (self.phase.sin() * 8000.0) as i16;
            p.push(encode(s));
            self.phase = (self.phase + TAU * self.tone / 8000.0) % TAU;
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(160);
        p
    }
}

/// Judgement of a second of audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The second is not over.
    More,
    /// The tone of the other party.
    Right,
    /// Something else.
    Wrong,
}

/// Listens for one tone (Goertzel's filter over whole seconds without a break in the RTP sequence).
pub(crate) struct Ear {
    coefficient: f64,
    s1: f64,
    s2: f64,
    energy: f64,
    n: usize,
    /// SSRC, sequence number and timestamp of the packet that continues the second.
    next: Option<(u32, u16, u32)>,
}

impl Ear {
    pub(crate) fn new(tone: f64) -> Self {
        Self { coefficient: 2.0 * (TAU * tone / 8000.0).cos(), s1: 0.0, s2: 0.0, energy: 0.0, n: 0, next: None }
    }

    fn restart(&mut self) {
        (self.s1, self.s2, self.energy, self.n) = (0.0, 0.0, 0.0, 0);
    }

    /// Takes a packet. The error says why the packet is not audio.
    pub(crate) fn hear(&mut self, packet: &[u8]) -> Result<Heard, String> {
        if packet.len() != 12 + SAMPLES || packet[0] != 0x80 {
            return Err(format!("{} bytes that are not a plain RTP packet of 20 ms", packet.len()));
        }
        if packet[1] & 0x7f != 0 {
            return Err(format!("payload type {} was not agreed", packet[1] & 0x7f));
        }
        let sequence = u16::from_be_bytes([packet[2], packet[3]]);
        let timestamp = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
        let ssrc = u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]);
        // After a loss or another source the phase jumps, so a new second begins.
        if self.next != Some((ssrc, sequence, timestamp)) {
            self.restart();
        }
        self.next = Some((ssrc, sequence.wrapping_add(1), timestamp.wrapping_add(160)));
        for &b in &packet[12..] {
            let x = f64::from(decode(b));
            let s = x + self.coefficient * self.s1 - self.s2;
            (self.s2, self.s1) = (self.s1, s);
            self.energy += x * x;
        }
        self.n += SAMPLES;
        if self.n < WINDOW {
            return Ok(Heard::More);
        }
        let power = self.s1 * self.s1 + self.s2 * self.s2 - self.coefficient * self.s1 * self.s2;
        let share = if self.energy > 0.0 { 2.0 * power / (8000.0 * self.energy) } else { 0.0 };
        self.restart();
        Ok(if share > PURE { Heard::Right } else { Heard::Wrong })
    }
}

/// µ-law of a sample (ITU-T G.711).
fn encode(sample: i16) -> u8 {
    let (sign, magnitude) = if sample < 0 { (0x80_u8, -i32::from(sample)) } else { (0, i32::from(sample)) };
    let m = magnitude.min(32_635) + 132;
    let exponent = (m.ilog2()).saturating_sub(7).min(7);
    let mantissa = (m >> (exponent + 3)) & 0x0f;
    !(sign | u8::try_from(exponent << 4).unwrap_or(0) | u8::try_from(mantissa).unwrap_or(0))
}

/// The sample of a µ-law byte.
fn decode(byte: u8) -> i32 {
    let b = !byte;
    let m = ((i32::from(b & 0x0f) << 3) + 132) << ((b >> 4) & 7);
    if b & 0x80 == 0 { m - 132 } else { 132 - m }
}
