//! Upper bounds of what endpoints without an output limit of their own produce: pictures, speech, transcripts.
//!
//! Sources: OpenAI's guides on image generation (its table of tokens by quality and size), speech to text (formats and
//! prices by minute and by token) and text to speech; RFC 6716 for the lowest rate of Opus.

/// Tokens of one picture at low, medium and high quality: up to 408, 1,584 and 6,240 of gpt-image-1, 7,024 of gpt-image-2.
/// With a margin.
const PICTURE: [u64; 3] = [512, 2_048, 8_192];
/// A partial picture of a stream: 100.
const PARTIAL: u64 = 128;
/// Sizes that the table names; later models draw any other up to four times as large, at less than twice the tokens.
const SIZES: [&str; 5] = ["", "auto", "1024x1024", "1024x1536", "1536x1024"];

/// Opus at 6 kbit/s, the lowest of any codec that is accepted, against about ten tokens a second.
const AUDIO_BYTES_PER_TOKEN: u64 = 75;
/// Tokens a second of audio, as the prices by minute and by token together say.
const AUDIO_TOKENS_PER_SECOND: f64 = 10.0;

/// Speech: about 21 tokens a second ($0.015 a minute at $12 a million), of which nobody reads less than three bytes aloud.
const SPEECH_TOKENS_PER_BYTE: u64 = 8;
/// A beginning and an end, however short the text.
const SPEECH_LEAST: u64 = 256;

/// One picture. Empty: not named.
pub(crate) fn picture(quality: &str, size: &str, partial_images: u64) -> u64 {
    let [low, medium, high] = PICTURE;
    let tokens = match quality {
        "low" => low,
        "medium" => medium,
        _ => high,
    };
    let tokens = if SIZES.contains(&size) { tokens } else { tokens * 2 };
    tokens.saturating_add(partial_images.saturating_mul(PARTIAL))
}

/// Of a file of audio, in any format.
pub(crate) fn audio_tokens(bytes: u64) -> u64 {
    bytes / AUDIO_BYTES_PER_TOKEN + 1
}

/// Of audio of this length.
pub(crate) fn heard(seconds: f64) -> u64 {
    // Saturates; no number is none.
    (seconds * AUDIO_TOKENS_PER_SECOND).ceil() as u64
}

/// Nobody says more than ten tokens a second.
pub(crate) fn transcript(audio: u64) -> u64 {
    audio
}

/// Speech for a text of so many bytes.
pub(crate) fn speech(text_bytes: u64) -> u64 {
    text_bytes.saturating_mul(SPEECH_TOKENS_PER_BYTE).saturating_add(SPEECH_LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_within_their_bounds() {
        // OpenAI's tables: gpt-image-1, and gpt-image-2 where it is dearer.
        for (quality, size, tokens) in [
            ("low", "1024x1024", 272),
            ("low", "1024x1536", 408),
            ("medium", "1024x1536", 1584),
            ("high", "1536x1024", 6208),
            ("high", "1024x1536", 6240),
            ("high", "1024x1024", 7024),
            ("high", "3584x2048", 12_329),
            ("auto", "auto", 6240),
            ("", "", 6240),
        ] {
            assert!(picture(quality, size, 0) >= tokens * 11 / 10, "{quality} {size}");
        }
        assert_eq!(picture("low", "", 3) - picture("low", "", 0), 3 * PARTIAL);
        assert!(picture("low", "auto", 0) < 1000, "cheap pictures are not held up by dear ones");
    }

    #[test]
    fn audio_is_bounded_by_its_slowest_codec() {
        // A minute at 6 kbit/s.
        assert!(audio_tokens(60 * 750) >= 600);
    }
}
