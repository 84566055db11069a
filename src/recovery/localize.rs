//! Turns one phone's description into the server's towards the other phone. Pure.
//!
//! The legs were negotiated apart, so their m-lines may differ in number and order, and a leg never loses one (RFC 3264
//! section 8). A line of one leg is carried to its partner on the other. What has no partner is refused: nothing is
//! behind it any more, since the server that ended it is gone.

#[cfg(test)]
mod tests;

use super::plan;
use crate::calls::model::Leg;
use crate::sip::sdp::{Media, Origin, Part, Place, Sdp, SdpError, arrange, set_media_address, with_origin};

/// The server's media address of each m-line of a leg, as the phone knows it.
pub(super) type Anchors = [Option<Place>];

/// A leg that a description is written for, and where each of its m-lines comes from.
pub(super) struct Towards<'a> {
    pub(super) leg: &'a Leg,
    pub(super) anchors: Option<&'a Anchors>,
    /// The other leg's line that belongs to a line of this leg.
    pub(super) partner: &'a dyn Fn(usize) -> Option<usize>,
}

impl Towards<'_> {
    /// The offer to this leg, from the other phone's offer `body`. `from` is the other leg, with its own anchors.
    ///
    /// # Errors
    /// The offer has lost m-lines, nothing of it can be carried, or a description is unusable.
    pub(super) fn offer(&self, from: (&Leg, Option<&Anchors>), body: &[u8]) -> Result<Vec<u8>, SdpError> {
        let sent = self.leg.sdp_sent.as_ref().ok_or(SdpError::Origin)?;
        let (sent, new) = (Sdp::parse(&sent.body.0)?, Sdp::parse(body)?);
        let known = from.0.sdp_received.as_ref().and_then(|d| Sdp::parse(&d.body.0).ok());
        if known.is_some_and(|known| new.media().len() < known.media().len()) {
            return Err(SdpError::MediaCount);
        }
        // A line for which a phone knows no port of ours would lead nowhere.
        let carried =
            |line: usize| (self.partner)(line).filter(|i| has_port(from.1, *i) && has_port(self.anchors, line));
        let part = |(line, old): (usize, &'_ Media<'_>)| match carried(line) {
            Some(i) if i < new.media().len() => Source::Line(i),
            _ if old.port == 0 => Source::Sent(line),
            _ => Source::Refused(line),
        };
        let sources: Vec<Source> = sent.media().iter().enumerate().map(part).collect();
        let active = |m: &Media<'_>| m.port != 0;
        let any = sources.iter().any(|s| matches!(s, Source::Line(i) if active(&new.media()[*i])));
        if new.media().iter().any(active) && !any {
            return Err(SdpError::MediaCount);
        }
        self.write(&sources, sent.media(), body)
    }

    /// The answer to the `offer` of this leg's phone, from the other phone's answer `body`. `asked` is what the other
    /// phone was offered.
    ///
    /// # Errors
    /// The answer does not fit the offer, or a description is unusable.
    pub(super) fn answer(&self, offer: &[u8], asked: Option<&[u8]>, body: &[u8]) -> Result<Vec<u8>, SdpError> {
        let (offer, new) = (Sdp::parse(offer)?, Sdp::parse(body)?);
        let asked = asked.and_then(|asked| Sdp::parse(asked).ok());
        if asked.is_some_and(|asked| asked.media().len() != new.media().len()) {
            return Err(SdpError::MediaCount);
        }
        let sent = self.leg.sdp_sent.as_ref().ok_or(SdpError::Origin)?;
        let sent = Sdp::parse(&sent.body.0)?;
        let part = |(line, m): (usize, &'_ Media<'_>)| {
            let answered = (self.partner)(line).filter(|i| {
                // Some phones answer RTP/AVPF with RTP/AVP. That is their own answer still.
                let fits = |a: &Media<'_>| a.kind.eq_ignore_ascii_case(m.kind);
                m.port != 0 && new.media().get(*i).is_some_and(fits)
            });
            let old = sent.media().get(line).filter(|old| {
                old.port == 0 && old.kind.eq_ignore_ascii_case(m.kind) && old.proto.eq_ignore_ascii_case(m.proto)
            });
            match (answered, old) {
                (Some(i), _) => Source::Line(i),
                (None, Some(_)) => Source::Sent(line),
                (None, None) => Source::Refused(line),
            }
        };
        let sources: Vec<Source> = offer.media().iter().enumerate().map(part).collect();
        self.write(&sources, offer.media(), body)
    }

    /// Writes the description: the leg's own `o=` line continues, and media go to the ports that the phone knows. An
    /// unchanged result keeps its version (RFC 3264 section 8).
    fn write(&self, sources: &[Source], pattern: &[Media<'_>], body: &[u8]) -> Result<Vec<u8>, SdpError> {
        let sent = self.leg.sdp_sent.as_ref().map(|d| &*d.body).ok_or(SdpError::Origin)?;
        let parsed = Sdp::parse(sent)?;
        let origin = parsed.origin().ok_or(SdpError::Origin)?;
        let parts = sources.iter().map(|source| match source {
            Source::Line(i) => Ok(Part::Line(*i)),
            Source::Sent(i) => parsed.media().get(*i).map(|m| Part::Block(m.block())).ok_or(SdpError::MediaCount),
            Source::Refused(i) => pattern.get(*i).map(Part::Off).ok_or(SdpError::MediaCount),
        });
        let body = arrange(body, &parts.collect::<Result<Vec<_>, _>>()?)?;
        let body = plan::without_conflicts(self.leg, &body)?;
        let moved = match self.anchors {
            Some(anchors) => {
                // A refused line has no port of ours, but it may need an address: c= is mandatory.
                let any = anchors.iter().flatten().next().copied();
                let place = |line: usize| match anchors.get(line) {
                    Some(place) => *place,
                    None => any,
                };
                set_media_address(&body, &(0..sources.len()).map(place).collect::<Vec<_>>())?
            }
            None => body,
        };
        let same = with_origin(&moved, &origin)?;
        if same == sent {
            return Ok(same);
        }
        let version = origin.version.checked_add(1).ok_or(SdpError::Origin)?;
        with_origin(&moved, &Origin { version, ..origin })
    }
}

/// Whether the phone of a leg may use an m-line: it knows a port of ours there, or an address that is not ours.
fn has_port(anchors: Option<&Anchors>, line: usize) -> bool {
    match anchors.map(|anchors| anchors.get(line)) {
        Some(Some(Some((at, _)))) => at.port() != 0,
        Some(None) => false,
        None | Some(Some(None)) => true,
    }
}

/// Where an m-line comes from.
enum Source {
    /// A line of the other phone's description.
    Line(usize),
    /// The leg's own line, as it was sent before.
    Sent(usize),
    /// A refused line after the pattern.
    Refused(usize),
}
