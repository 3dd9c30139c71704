//! Session descriptions without media (RFC 3264): one audio stream that is inactive, at port 9 (discard).

/// Media lines of an offer that are answered: a softphone offers two or three.
const MOST_STREAMS: usize = 16;

/// What is offered when an INVITE has no offer: G.711, which everybody knows.
pub(super) fn offer(host: &str) -> String {
    format!("{}m=audio 9 RTP/AVP 0\r\na=inactive\r\n", session(host))
}

/// The answer to `offer`: its first audio stream inactive, the others refused. `None`: it has no audio, or is no offer.
pub(super) fn answer(offer: &[u8], host: &str) -> Option<String> {
    let offer = std::str::from_utf8(offer).ok()?;
    let mut answer = session(host);
    let mut has_audio = false;
    let streams: Vec<&str> = offer.lines().filter_map(|line| line.strip_prefix("m=")).collect();
    if streams.len() > MOST_STREAMS {
        return None;
    }
    for stream in streams {
        let mut fields = stream.split_ascii_whitespace();
        let (media, _, protocol, format) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        if media == "audio" && !has_audio {
            has_audio = true;
            answer.push_str(&format!("m=audio 9 {protocol} {format}\r\na=inactive\r\n"));
        } else {
            // RFC 3264 §6: port 0 refuses a stream.
            answer.push_str(&format!("m={media} 0 {protocol} {format}\r\n"));
        }
    }
    has_audio.then_some(answer)
}

fn session(host: &str) -> String {
    let family = if host.contains(':') { "IP6" } else { "IP4" };
    format!("v=0\r\no=- 1 1 IN {family} {host}\r\ns=-\r\nc=IN {family} {host}\r\nt=0 0\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stream_is_answered_and_none_carries_media() {
        let offer = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
            m=video 5000 RTP/AVP 96\r\nm=audio 4000 RTP/SAVP 8 0 101\r\na=sendrecv\r\nm=audio 4002 RTP/AVP 0\r\n";
        let answer = answer(offer, "203.0.113.10").expect("audio was offered");
        let streams: Vec<&str> =
            answer.lines().filter(|line| line.starts_with("m=") || line.starts_with("a=")).collect();
        assert_eq!(streams, ["m=video 0 RTP/AVP 96", "m=audio 9 RTP/SAVP 8", "a=inactive", "m=audio 0 RTP/AVP 0"]);
        assert!(answer.contains("c=IN IP4 203.0.113.10\r\n"));
    }

    #[test]
    fn what_is_no_offer_of_audio_is_not_answered() {
        let many = format!("v=0\r\n{}", "m=audio 4000 RTP/AVP 0\r\n".repeat(MOST_STREAMS + 1));
        for offer in ["", "v=0\r\n", "m=video 5000 RTP/AVP 96\r\n", "m=audio 4000\r\n", &many] {
            assert_eq!(answer(offer.as_bytes(), "203.0.113.10"), None, "{offer}");
        }
        assert_eq!(answer(b"m=audio \xff RTP/AVP 0\r\n", "203.0.113.10"), None);
        assert!(answer(offer("2001:db8::1").as_bytes(), "2001:db8::1").expect("audio").contains("IN IP6"));
    }
}
