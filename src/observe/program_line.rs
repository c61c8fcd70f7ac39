//! A line of the program log: text for a person, or one JSON object. Both have the same parts.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::json_fields as field;
use crate::config::ProgramFormat;
use crate::encoding::visible::Visible;

/// Longer texts are cut: a backtrace has its place.
const TEXT_BYTES: usize = 16 * 1024;

/// The format of the lines that are written now. It changes with the configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct LineForm(Arc<AtomicBool>);

/// Writes events as lines.
pub(super) struct EventFormat {
    form: LineForm,
    text: Format<Full, SystemTime>,
}

/// A line that is no event.
pub(super) struct OwnLine<'a> {
    pub(super) level: Level,
    pub(super) target: &'a str,
    pub(super) message: &'a str,
    pub(super) fields: &'a LineFields,
    /// A number under its name.
    pub(super) count: Option<(&'a str, u64)>,
}

/// Fields of an event, in both formats.
#[derive(Clone, Debug, Default)]
pub(super) struct LineFields {
    pub(super) text: String,
    json: String,
}

impl LineForm {
    pub(super) fn set(&self, format: ProgramFormat) {
        self.0
            .store(format == ProgramFormat::Json, Ordering::Relaxed);
    }

    fn is_json(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Appends `line`.
    pub(super) fn push(&self, out: &mut String, line: &OwnLine<'_>) {
        let OwnLine {
            message, fields, ..
        } = line;
        // Writing to a String cannot fail.
        if self.is_json() {
            push_json_head(out, line.level, line.target);
            push_text(out, "message", message);
            out.push_str(&fields.json);
            if let Some((name, count)) = line.count {
                field::number(out, name, count);
            }
            out.push_str("}\n");
        } else {
            let mut text = String::new();
            let _ = SystemTime.format_time(&mut Writer::new(&mut text));
            let _ = write!(
                text,
                " {:>5} {}: {message}{}",
                line.level, line.target, fields.text
            );
            if let Some((name, count)) = line.count {
                let _ = write!(text, " {name}={count}");
            }
            let _ = writeln!(out, "{}", VisibleLines(&text));
        }
    }

    /// A text that a command would print, as a line: in JSON as an event's message.
    pub(super) fn printed(&self, text: &str) -> String {
        if !self.is_json() {
            return format!("{}\n", VisibleLines(text));
        }
        // A problem of the configuration names its kind: `FILE:LINE:COLUMN: warning: …`.
        let level = if text.contains(": warning: ") {
            Level::WARN
        } else {
            Level::ERROR
        };
        let mut line = String::new();
        let printed = OwnLine {
            level,
            target: env!("CARGO_PKG_NAME"),
            message: text,
            fields: &LineFields::default(),
            count: None,
        };
        self.push(&mut line, &printed);
        line
    }
}

impl EventFormat {
    pub(super) fn new(form: &LineForm) -> Self {
        Self {
            form: form.clone(),
            text: tracing_subscriber::fmt::format(),
        }
    }
}

impl<S, N> FormatEvent<S, N> for EventFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::with_capacity(256);
        if !self.form.is_json() {
            let text = Writer::new(&mut line);
            self.text.format_event(context, text, event)?;
            return write!(writer, "{}", VisibleLines(&line));
        }
        let metadata = event.metadata();
        push_json_head(&mut line, *metadata.level(), metadata.target());
        event.record(&mut JsonVisitor(&mut line));
        line.push_str("}\n");
        writer.write_str(&line)
    }
}

impl LineFields {
    /// Adds a field: a text is in quotes, and what is only printed is not.
    pub(super) fn push_str(&mut self, name: &str, value: &str) {
        let _ = write!(self.text, " {name}={value:?}");
        push_text(&mut self.json, name, value);
    }

    pub(super) fn push_debug(&mut self, name: &str, value: &dyn fmt::Debug) {
        let _ = write!(self.text, " {name}={value:?}");
        push_text(&mut self.json, name, &format!("{value:?}"));
    }
}

/// Time, level and target.
fn push_json_head(json: &mut String, level: Level, target: &str) {
    json.push_str("{\"time\":\"");
    let _ = SystemTime.format_time(&mut Writer::new(json));
    let level = match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        _ => "trace",
    };
    let _ = write!(json, "\",\"level\":\"{level}\"");
    push_text(json, "target", target);
}

fn push_text(json: &mut String, name: &str, text: &str) {
    field::cut_text(json, name, text.as_bytes(), TEXT_BYTES);
}

/// Text of several lines, such as a backtrace: every other hidden character is escaped.
struct VisibleLines<'a>(&'a str);

impl fmt::Display for VisibleLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.0.split('\n').enumerate() {
            if index > 0 {
                f.write_char('\n')?;
            }
            Visible(line).fmt(f)?;
        }
        Ok(())
    }
}

/// The fields of an event, as fields of its object.
struct JsonVisitor<'a>(&'a mut String);

impl Visit for JsonVisitor<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            let _ = write!(self.0, ",\"{}\":{value}", field.name());
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        let _ = write!(self.0, ",\"{}\":{value}", field.name());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        field::number(self.0, field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        let _ = write!(self.0, ",\"{}\":{value}", field.name());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        push_text(self.0, field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        push_text(self.0, field.name(), &format!("{value:?}"));
    }
}
