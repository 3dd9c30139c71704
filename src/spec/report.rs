//! What is wrong with a spec, for people and for programs.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use serde::Serialize;
use textwrap::{WordSeparator, WordSplitter};

/// Columns that a report is wrapped at.
const WIDTH: usize = 110;

/// Bytes of a line that is shown. A longer one would hide the message; its place is named in words.
const LONGEST_LINE: usize = 400;

/// All that is wrong with a spec. Its `Display` shows each with the lines of the file that it is about, without colours.
#[derive(Debug, Clone, Serialize)]
pub struct SpecErrors {
    /// File, as the caller named it.
    pub file: String,
    /// In the order of the file; warnings are among them.
    pub findings: Vec<Finding>,
    #[serde(skip)]
    source: Arc<str>,
}

/// One thing that is wrong, or doubtful.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether it stops a deploy.
    pub severity: Severity,
    /// What kind it is, such as `spec::unknown-key`. Stable.
    pub code: &'static str,
    /// File, as the caller named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Characters from there; 0 when it is about no place in the text.
    pub length: usize,
    /// Setting, such as `trunks.source.from[0]`; empty when it is about none.
    pub setting: String,
    /// What is wrong, and why.
    pub message: String,
    /// What to write instead.
    pub help: String,
    #[serde(skip)]
    span: Range<usize>,
}

/// Whether a finding stops a deploy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// It does.
    Error,
    /// It does not.
    Warning,
}

impl SpecErrors {
    pub(crate) fn new(file: &str, source: &str, mut findings: Vec<Finding>) -> Self {
        findings.sort_by(|a, b| {
            (a.span.start, a.severity, a.code, &a.message).cmp(&(b.span.start, b.severity, b.code, &b.message))
        });
        findings.dedup();
        Self { file: file.to_owned(), findings, source: source.into() }
    }

    /// The findings that stop a deploy.
    pub fn errors(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Error)
    }

    /// The report, with colours for a terminal when `colour` is set.
    pub fn render(&self, colour: bool) -> String {
        let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(WIDTH)
            .with_links(false)
            .with_context_lines(1)
            .with_word_separator(WordSeparator::AsciiSpace)
            .with_word_splitter(WordSplitter::NoHyphenation);
        let mut text = String::new();
        for finding in &self.findings {
            let source = finding.is_shown(&self.source).then(|| NamedSource::new(&self.file, Arc::clone(&self.source)));
            let shown = Shown { finding, source };
            if handler.render_report(&mut text, &shown).is_err() {
                text.push_str(&finding.message);
            }
            text.push('\n');
        }
        let errors = self.errors().count();
        let warnings = self.findings.len() - errors;
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        text.push_str(&format!(
            "{}: {errors} error{}, {warnings} warning{}\n",
            self.file,
            plural(errors),
            plural(warnings)
        ));
        let trimmed: Vec<&str> = text.lines().map(str::trim_end).collect();
        trimmed.join("\n") + "\n"
    }
}

impl fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for SpecErrors {}

impl Finding {
    pub(crate) fn new(file: &str, source: &str, place: (Range<usize>, String), what: What) -> Self {
        let (span, setting) = place;
        let span = clip(source, span);
        let before = source.get(..span.start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            severity: what.severity,
            code: what.code,
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            length: source.get(span.clone()).unwrap_or_default().chars().count(),
            setting,
            message: what.message,
            help: what.help,
            span,
        }
    }

    /// Whether a report shows the lines that it is about: those of a sensible length, when it is about a place in the text.
    fn is_shown(&self, source: &str) -> bool {
        let around = self.line.saturating_sub(2);
        self.length > 0 && source.lines().skip(around).take(3).all(|line| line.len() <= LONGEST_LINE)
    }
}

/// A finding before its place is known in lines and columns.
#[derive(Debug, Clone)]
pub(crate) struct What {
    pub(crate) severity: Severity,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) help: String,
}

impl What {
    pub(crate) fn error(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { severity: Severity::Error, code, message: message.into(), help: help.into() }
    }

    pub(crate) fn warning(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, code, message: message.into(), help: help.into() }
    }
}

/// `span`, within the text and within its first line.
fn clip(source: &str, span: Range<usize>) -> Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(source.len());
        while !source.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start);
    let end = floor(span.end.max(start));
    let line = source.get(start..end).and_then(|text| text.find('\n')).map_or(end, |newline| start + newline);
    start..line
}

/// A finding with its source, as miette wants it.
#[derive(Debug)]
struct Shown<'a> {
    finding: &'a Finding,
    source: Option<NamedSource<Arc<str>>>,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.finding.message)?;
        if self.source.is_none() && self.finding.length > 0 {
            write!(f, " (line {}, column {})", self.finding.line, self.finding.column)?;
        }
        Ok(())
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.finding.code))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.finding.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        (!self.finding.help.is_empty()).then(|| Box::new(&self.finding.help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.source.as_ref()?;
        let span = &self.finding.span;
        Some(Box::new(std::iter::once(LabeledSpan::new(None, span.start, span.len()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_cut_at_the_line_and_at_characters() {
        assert_eq!(clip("ab\ncd", 1..5), 1..2);
        assert_eq!(clip("é", 1..2), 0..2);
        assert_eq!(clip("ab", 7..9), 2..2);
    }
}
