//! Hidden characters: a reader does not see them, or they change how the text around them is shown. Logs and
//! terminals get them escaped.

use std::fmt::{self, Write as _};

/// A text of which a terminal shows every character, and obeys none.
pub(crate) struct Visible<'a>(pub(crate) &'a str);

/// Whether `c` is a control character, ends a line or a paragraph (U+2028, U+2029), or is one of Unicode's
/// format characters (`Cf`) or of those that show as nothing (`Default_Ignorable_Code_Point`).
///
/// Signs that stand before Arabic, Syriac and Kaithi numbers are format characters too, but have a shape. So they are left.
pub(crate) fn is_hidden(c: char) -> bool {
    // Most characters are none of them.
    if c < '\u{7f}' {
        return c < ' ';
    }
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{13430}'..='\u{13455}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Appends a hidden character as a JSON string has it: `\u202e`, or two of these beyond U+FFFF.
pub(crate) fn push_json_escape(json: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        // Writing to a String cannot fail.
        let _ = write!(json, "\\u{unit:04x}");
    }
}

/// Hidden characters are written as `\u{202e}`.
impl fmt::Display for Visible<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if is_hidden(c) {
                write!(f, "{}", c.escape_unicode())?;
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_a_terminal_would_hide_or_obey() {
        for hidden in [
            '\0',
            '\n',
            '\u{1b}',
            '\u{7f}',
            '\u{9b}',
            '\u{ad}',
            '\u{200d}',
            '\u{2028}',
            '\u{2029}',
            '\u{202e}',
            '\u{2066}',
            '\u{feff}',
            '\u{fe0f}',
            '\u{e0041}',
        ] {
            let text = format!("a{hidden}b");
            let shown = format!("a\\u{{{:x}}}b", u32::from(hidden));
            assert_eq!(Visible(&text).to_string(), shown);
        }
        for text in [
            "photo 1.jpg",
            "~\"\\'",
            "é 照片 فيلم",
            "e\u{301}",
            "\u{600}1",
            "📷",
        ] {
            assert_eq!(Visible(text).to_string(), text);
        }
    }

    #[test]
    fn json_escapes_are_read_back() {
        for c in ['\u{1b}', '\u{2028}', '\u{e0041}'] {
            let mut json = String::from("\"");
            push_json_escape(&mut json, c);
            json.push('"');
            assert!(json.is_ascii());
            assert_eq!(
                serde_json::from_str::<String>(&json).unwrap(),
                c.to_string()
            );
        }
    }
}
