//! YAML text → a tree in which every key and value knows its place.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

/// Nesting that a spec may have. The deepest sensible one has 5 levels; the bound keeps recursion over the tree short.
const MAX_DEPTH: usize = 32;

/// Values that a document may have after its aliases are put in, so that a few lines of anchors cannot become gigabytes. User-data of
/// 16 KiB holds about 800 ranges.
const MAX_NODES: usize = 5_000;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// Bytes of the text.
    pub(crate) span: Range<usize>,
    /// What it is.
    pub(crate) value: Value,
}

/// A YAML value (YAML 1.2 core schema).
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Range<usize>,
    pub(crate) value: Node,
}

/// Text that is no YAML, or YAML that no spec is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TreeError {
    pub(crate) code: &'static str,
    pub(crate) span: Range<usize>,
    pub(crate) message: String,
    pub(crate) help: String,
}

/// Where a value stands in the document.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Path(Vec<Step>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Key(String),
    Index(usize),
}

impl Path {
    /// The path of these keys.
    pub(crate) fn of<const N: usize>(keys: [&str; N]) -> Self {
        Self(keys.iter().map(|key| Step::Key((*key).to_owned())).collect())
    }

    /// The value of `key` in the map here.
    pub(crate) fn key(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Self(steps)
    }

    /// The item at `index` of the list here.
    pub(crate) fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Self(steps)
    }

    /// The map or list that this is in.
    pub(crate) fn parent(&self) -> Self {
        let end = self.0.len().saturating_sub(1);
        Self(self.0.iter().take(end).cloned().collect())
    }

    /// Whether one of the two contains the other.
    pub(crate) fn touches(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if at == 0 => write!(f, "{key}")?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

impl Node {
    /// The value at `path`, if there is one.
    pub(crate) fn at(&self, path: &Path) -> Option<&Self> {
        path.0.iter().try_fold(self, |node, step| match (&node.value, step) {
            (Value::Map(entries), Step::Key(key)) => {
                entries.iter().find(|entry| entry.key == *key).map(|entry| &entry.value)
            }
            (Value::List(items), Step::Index(index)) => items.get(*index),
            _ => None,
        })
    }

    /// The keys of the map at `path`, in order.
    pub(crate) fn keys(&self, path: &Path) -> Vec<&str> {
        match self.at(path).map(|node| &node.value) {
            Some(Value::Map(entries)) => entries.iter().map(|entry| entry.key.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    /// Where to point for `path`: the value when it is a scalar, else its key; when it is absent, what it would be in.
    pub(crate) fn mark(&self, path: &Path) -> Range<usize> {
        let mut node = self;
        let mut mark = 0..0;
        for step in &path.0 {
            let next = match (&node.value, step) {
                (Value::Map(entries), Step::Key(key)) => {
                    entries.iter().find(|entry| entry.key == *key).map(|entry| (entry.key_span.clone(), &entry.value))
                }
                (Value::List(items), Step::Index(index)) => items.get(*index).map(|item| (item.span.clone(), item)),
                _ => None,
            };
            let Some((span, child)) = next else { return mark };
            let scalar = !matches!(child.value, Value::Map(_) | Value::List(_) | Value::Null);
            mark = if scalar { child.span.clone() } else { span };
            node = child;
        }
        mark
    }

    /// Where the key of the value at `path` stands.
    pub(crate) fn key_mark(&self, path: &Path) -> Range<usize> {
        let entry = match (self.at(&path.parent()).map(|node| &node.value), path.0.last()) {
            (Some(Value::Map(entries)), Some(Step::Key(key))) => entries.iter().find(|entry| entry.key == *key),
            _ => None,
        };
        entry.map_or_else(|| self.mark(path), |entry| entry.key_span.clone())
    }

    fn count(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(Self::count).sum(),
            Value::Map(entries) => entries.iter().map(|entry| entry.value.count()).sum(),
            _ => 0,
        }
    }
}

/// Reads the one document in `text`. Keys that stand twice do not stop it: they come back beside the tree, which has the first.
pub(crate) fn read(text: &str) -> Result<(Node, Vec<TreeError>), TreeError> {
    let mut builder = Builder { bytes: byte_offsets(text), ..Builder::default() };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax_error(text, &builder.bytes, &error))?;
        if matches!(event, Event::StreamEnd) {
            break;
        }
        builder.take(event, span)?;
    }
    match builder.root {
        Some(root) if root.value != Value::Null => Ok((root, builder.duplicates)),
        _ => Err(TreeError {
            code: "spec::empty",
            span: 0..0,
            message: "the file has no settings".into(),
            help: "`sipedge init` writes a spec to start from".into(),
        }),
    }
}

/// Byte offset of each character, and of the end.
fn byte_offsets(text: &str) -> Vec<usize> {
    text.char_indices().map(|(at, _)| at).chain([text.len()]).collect()
}

fn syntax_error(text: &str, bytes: &[usize], error: &ScanError) -> TreeError {
    let marker = error.marker();
    let at = bytes.get(marker.index()).copied().unwrap_or(text.len());
    let start = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
    let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let indent = line.len() - line.trim_start().len();
    if let Some(tab) = line.get(..indent).and_then(|indent| indent.find('\t')) {
        return TreeError {
            code: "spec::tab",
            span: start + tab..start + tab + 1,
            message: "a tab in the indentation; YAML allows spaces alone".into(),
            help: "put two spaces in its place".into(),
        };
    }
    // The end of the file has nothing to point to: the last character has.
    let last = text.trim_end().char_indices().next_back().map_or(0, |(last, _)| last);
    let at = at.min(last);
    let width = text.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    TreeError {
        code: "spec::syntax",
        span: at..at + width,
        message: format!("this is no YAML: {}", error.info()),
        help: "look for a missing colon, space, quote or bracket here or on the line before".into(),
    }
}

#[derive(Default)]
struct Builder {
    bytes: Vec<usize>,
    open: Vec<Open>,
    root: Option<Node>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    duplicates: Vec<TreeError>,
}

struct Open {
    start: usize,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(String, Range<usize>)> },
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), TreeError> {
        let span = self.range(span);
        match event {
            Event::DocumentStart(_) if self.root.is_some() => Err(TreeError {
                code: "spec::documents",
                span,
                message: "a second document begins here; a spec is one".into(),
                help: "take the `---` out, or put the second edge into a file of its own".into(),
            }),
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_deref()).ok_or_else(|| bad_tag(span.clone()))?;
                self.count(1, &span)?;
                self.put(Node { span, value }, anchor)
            }
            Event::SequenceStart(anchor, tag) => self.begin(span, anchor, tag.as_deref(), Content::List(Vec::new())),
            Event::MappingStart(anchor, tag) => {
                self.begin(span, anchor, tag.as_deref(), Content::Map { entries: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let value = match open.content {
                    Content::List(items) => Value::List(items),
                    Content::Map { entries, .. } => Value::Map(entries),
                };
                self.put(Node { span: open.start..span.end.max(open.start), value }, open.anchor)
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(TreeError {
                        code: "spec::alias",
                        span,
                        message: "this alias stands inside the value that it names".into(),
                        help: "write the value out".into(),
                    });
                };
                let nodes = node.count();
                let node = node.clone();
                self.count(nodes, &span)?;
                self.put(node, 0)
            }
            _ => Ok(()),
        }
    }

    fn begin(
        &mut self,
        span: Range<usize>,
        anchor: usize,
        tag: Option<&Tag>,
        content: Content,
    ) -> Result<(), TreeError> {
        if tag.is_some_and(|tag| !tag.is_yaml_core_schema()) {
            return Err(bad_tag(span));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(TreeError {
                code: "spec::depth",
                span,
                message: format!("values are nested more than {MAX_DEPTH} deep"),
                help: "a spec needs five levels; look for brackets that are not closed".into(),
            });
        }
        self.count(1, &span)?;
        self.open.push(Open { start: span.start, anchor, content });
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), TreeError> {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { entries, key }) => match key.take() {
                None => *key = Some((key_text(&node)?, node.span)),
                Some((key, key_span)) => match entries.iter().any(|entry| entry.key == key) {
                    true => self.duplicates.push(TreeError {
                        code: "spec::duplicate-key",
                        span: key_span,
                        message: format!("the key `{key}` stands twice in this map"),
                        help: "keep one of the two".into(),
                    }),
                    false => entries.push(Entry { key, key_span, value: node }),
                },
            },
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, span: &Range<usize>) -> Result<(), TreeError> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        Err(TreeError {
            code: "spec::size",
            span: span.clone(),
            message: format!("with its aliases put in, the file has more than {MAX_NODES} values"),
            help: "write the values out where they are needed".into(),
        })
    }

    fn range(&self, span: Span) -> Range<usize> {
        let end = self.bytes.last().copied().unwrap_or_default();
        let at = |index: usize| self.bytes.get(index).copied().unwrap_or(end);
        at(span.start.index())..at(span.end.index())
    }
}

fn bad_tag(span: Range<usize>) -> TreeError {
    TreeError {
        code: "spec::tag",
        span,
        message: "a YAML tag that has no meaning here, or a value that is not of its tag's type".into(),
        help: "take the tag (the word that begins with `!`) out".into(),
    }
}

fn key_text(node: &Node) -> Result<String, TreeError> {
    match &node.value {
        Value::Text(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Null => Ok(String::new()),
        Value::List(_) | Value::Map(_) => Err(TreeError {
            code: "spec::key",
            span: node.span.clone(),
            message: "a map or a list stands where a key is needed".into(),
            help: "write `key: value`; a text that begins with { or [ needs quotes".into(),
        }),
    }
}

/// A scalar by the YAML 1.2 core schema. `None`: the tag is unknown or does not fit.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Option<Value> {
    let plain = match tag {
        None => style == ScalarStyle::Plain,
        Some(tag) if !tag.is_yaml_core_schema() => return None,
        Some(tag) if tag.suffix == "str" => false,
        Some(_) => true,
    };
    if !plain {
        return Some(Value::Text(text.to_owned()));
    }
    let value = match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => integer(text).map(Value::Integer).or_else(|| float(text)).unwrap_or_else(|| Value::Text(text.to_owned())),
    };
    let fits = match tag.map(|tag| tag.suffix.as_str()) {
        None => true,
        Some("int") => matches!(value, Value::Integer(_)),
        Some("bool") => matches!(value, Value::Bool(_)),
        Some("float") => matches!(value, Value::Float(_) | Value::Integer(_)),
        Some("null") => matches!(value, Value::Null),
        Some(_) => false,
    };
    fits.then_some(value)
}

fn integer(text: &str) -> Option<i64> {
    if let Some(digits) = text.strip_prefix("0x") {
        return i64::from_str_radix(digits, 16).ok();
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return i64::from_str_radix(digits, 8).ok();
    }
    text.parse().ok()
}

fn float(text: &str) -> Option<Value> {
    let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E'));
    if !numeric || !text.bytes().any(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().map(Value::Float)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_of_the_text() {
        let text = "name: föö\ntrunks:\n  a: { from: [192.0.2.0/24, x] }\n";
        let (root, duplicates) = read(text).unwrap();
        assert!(duplicates.is_empty());
        let item = Path::of(["trunks", "a", "from"]).index(1);
        assert_eq!(&text[root.mark(&item)], "x");
        assert_eq!(&text[root.mark(&Path::of(["name"]))], "föö");
        assert_eq!(&text[root.mark(&Path::of(["trunks", "a"]))], "a");
        assert_eq!(&text[root.mark(&Path::of(["trunks", "a", "domain"]))], "a");
        assert_eq!(item.to_string(), "trunks.a.from[1]");
    }

    #[test]
    fn a_key_that_stands_twice_is_found_and_the_rest_is_read() {
        let (root, duplicates) = read("a: 1\nb: 2\na: 3\n").unwrap();
        assert_eq!(duplicates.len(), 1);
        assert_eq!(duplicates[0].span, 10..11);
        assert_eq!(root.at(&Path::of(["a"])).unwrap().value, Value::Integer(1));
    }

    #[test]
    fn aliases_are_put_in_up_to_a_bound() {
        let (root, _) = read("a: &x [1, 2]\nb: *x\n").unwrap();
        assert_eq!(root.at(&Path::of(["b"])).unwrap().count(), 3);
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let items = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
        }
        assert_eq!(read(&bomb).unwrap_err().code, "spec::size");
        assert_eq!(read("a: &x [*x]").unwrap_err().code, "spec::alias");
    }

    #[test]
    fn no_text_makes_it_panic_or_recurse_without_end() {
        let deep = "[".repeat(100_000);
        let deep_map = "{a: ".repeat(10_000);
        for text in [
            "",
            "\u{0}",
            "\t",
            "a:\n\t b",
            "- ",
            "? ",
            "%",
            "!",
            "&",
            "*",
            "\"",
            "|",
            "a: [",
            "}",
            "...",
            "---\n---",
            "\u{feff}a: b",
            &deep,
            &deep_map,
        ] {
            let _ = read(text);
        }
        assert_eq!(read("[[[").unwrap_err().code, "spec::syntax");
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        let (root, _) = read("[1, +1, 0x10, 1.5, yes, true, ~, '1', !!str 1, 5s, 1.2.3.4]").unwrap();
        let Value::List(items) = root.value else { panic!("no list") };
        let values: Vec<Value> = items.into_iter().map(|item| item.value).collect();
        let text = |text: &str| Value::Text(text.into());
        assert_eq!(
            values,
            [
                Value::Integer(1),
                Value::Integer(1),
                Value::Integer(16),
                Value::Float(1.5),
                text("yes"),
                Value::Bool(true),
                Value::Null,
                text("1"),
                text("1"),
                text("5s"),
                text("1.2.3.4"),
            ]
        );
    }
}
