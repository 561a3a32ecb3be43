//! A digest of how a conversation begins: its system prompt and everything up to the end of the first message of the user.
//! All turns of one conversation have the same, so that they can go where the provider has the beginning in its cache.
//!
//! Made of decoded texts while the body is walked, so neither escapes nor the order of fields change it. It decides
//! nothing but where a request goes; two conversations with the same digest share a backend and no more.

/// Words of a text that are mixed at the same time.
const LANES: usize = 4;

/// Collects the digest. Closed unless a field that carries the beginning is being walked.
#[derive(Debug, Default)]
pub(crate) struct Beginning {
    /// The digest is known, and this walk is for something else.
    is_known: bool,
    sum: Option<u64>,
    field: Option<Field>,
}

/// One field while it is walked.
#[derive(Debug)]
struct Field {
    state: u64,
    /// It is all text, wherever that stands in it.
    whole: bool,
    of_user: bool,
    ended: bool,
    any: bool,
}

impl Beginning {
    /// Collects nothing.
    pub(crate) fn known() -> Self {
        Self { is_known: true, ..Self::default() }
    }

    /// A field of the body begins.
    pub(crate) fn opens(&mut self, name: &str) {
        let whole = match name {
            _ if self.is_known => return,
            "messages" | "input" | "prompt" => false,
            "system" | "instructions" => true,
            _ => return,
        };
        let state = mixed(name.len() as u64);
        self.field = Some(Field { state, whole, of_user: false, ended: false, any: false });
    }

    /// A text. `counts`: it is said by somebody, not a name, a type or a setting.
    pub(crate) fn text(&mut self, text: &str, counts: bool) {
        let Some(field) = self.field.as_mut().filter(|field| !field.ended && (counts || field.whole)) else {
            return;
        };
        field.any = true;
        let (rows, rest) = text.as_bytes().as_chunks::<{ 8 * LANES }>();
        if !rows.is_empty() {
            // Side by side: one after the other, each would wait for the one before.
            let mut lanes: [u64; LANES] = std::array::from_fn(|lane| field.state.wrapping_add(lane as u64));
            for row in rows {
                for (lane, word) in lanes.iter_mut().zip(row.as_chunks::<8>().0) {
                    *lane = mixed(*lane ^ u64::from_le_bytes(*word));
                }
            }
            field.state = lanes.into_iter().fold(field.state, |state, lane| mixed(state ^ lane));
        }
        for word in rest.chunks(8) {
            let mut bytes = [0; 8];
            bytes[..word.len()].copy_from_slice(word);
            field.state = mixed(field.state ^ u64::from_le_bytes(bytes));
        }
        // With the length, so that no two lists of texts run into one.
        field.state = mixed(field.state ^ text.len() as u64);
    }

    /// Whose message it is.
    pub(crate) fn role(&mut self, role: &str) {
        if let Some(field) = &mut self.field {
            field.of_user = role == "user";
        }
    }

    /// A message ends. The user's first is the last that counts.
    pub(crate) fn message_ends(&mut self) {
        if let Some(field) = &mut self.field {
            field.ended |= field.of_user;
            field.of_user = false;
        }
    }

    /// A field of the body ends.
    pub(crate) fn closes(&mut self) {
        if let Some(field) = self.field.take().filter(|field| field.any) {
            // A sum: fields may stand in any order.
            self.sum = Some(self.sum.unwrap_or_default().wrapping_add(mixed(field.state)));
        }
    }

    /// `None`: nothing was said.
    pub(crate) fn digest(&self) -> Option<u64> {
        self.sum
    }
}

/// splitmix64's finalizer: the same in every gateway of a fleet.
fn mixed(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use crate::provider::{Endpoint, Facts};

    fn digest(body: &str) -> Option<u64> {
        Facts::decode(Endpoint::Chat, body.as_bytes()).unwrap().conversation
    }

    const FIRST: &str =
        r#"{"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}]}"#;

    #[test]
    fn later_turns_escapes_settings_and_forms_of_the_same_text_change_nothing() {
        let wanted = digest(FIRST).unwrap();
        for body in [
            r#"{"temperature":1,"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"},
                {"role":"assistant","content":"Hello"},{"role":"user","content":"And now?"}]}"#,
            r#"{"messages":[{"content":"Be br\u0069ef.","role":"system"},{"content":"Hi","role":"user","name":"al"}]}"#,
            r#"{"messages":[{"role":"system","content":[{"type":"text","text":"Be brief."}]},{"role":"user","content":
                [{"type":"text","text":"Hi","cache_control":{"type":"ephemeral"}}]}],"tools":[{"name":"f"}]}"#,
        ] {
            assert_eq!(digest(body), Some(wanted), "{body}");
        }
    }

    #[test]
    fn another_beginning_is_another_conversation() {
        let mut seen = vec![digest(FIRST)];
        for body in [
            r#"{"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Ho"}]}"#,
            r#"{"messages":[{"role":"system","content":"Be brie."},{"role":"user","content":"fHi"}]}"#,
            r#"{"messages":[{"role":"system","content":"Be brief.Hi"},{"role":"user","content":""}]}"#,
            r#"{"messages":[{"role":"user","content":"Hi"}]}"#,
            r#"{"instructions":"Be brief.","input":"Hi"}"#,
            r#"{"instructions":"Be brief.","input":"Ho"}"#,
            r#"{"input":"Hi"}"#,
        ] {
            let found = digest(body);
            assert!(found.is_some() && !seen.contains(&found), "{body}");
            seen.push(found);
        }
    }

    #[test]
    fn fields_may_stand_in_any_order_and_nothing_said_is_nothing() {
        let system =
            r#"{"system":[{"type":"text","text":"Be brief."}],"messages":[{"role":"user","content":"Hi"}]}"#;
        let turned =
            r#"{"messages":[{"role":"user","content":"Hi"}],"system":[{"type":"text","text":"Be brief."}]}"#;
        assert_eq!(digest(system), digest(turned));
        assert_ne!(digest(system), digest(r#"{"messages":[{"role":"user","content":"Hi"}]}"#));
        assert_eq!(digest(r#"{"model":"m","messages":[]}"#), None);
    }
}
