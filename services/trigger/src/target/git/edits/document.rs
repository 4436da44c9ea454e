//! A YAML file as a tree whose values know their bytes in the file.

use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, StructureStyle};

use super::value::{Quoting, Written};

/// Most nodes of a file: more are no manifest.
const MOST: usize = 200_000;

/// A node of a document.
#[derive(Debug)]
pub(super) struct Node {
    /// The bytes of the node, quotes included.
    pub(super) range: Range<usize>,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    Text {
        value: String,
        style: ScalarStyle,
    },
    Map {
        entries: Vec<(Node, Node)>,
        flow: bool,
    },
    List(Vec<Node>),
    /// A reference to another node, which is not followed.
    Alias,
}

/// A collection that is still being read.
enum Open {
    Map {
        start: usize,
        flow: bool,
        entries: Vec<(Node, Node)>,
        key: Option<Node>,
    },
    List {
        start: usize,
        items: Vec<Node>,
    },
}

/// Reads all documents of a file.
pub(super) fn documents(text: &str) -> Result<Vec<Node>, String> {
    let (mut documents, mut open, mut nodes) = (Vec::new(), Vec::<Open>::new(), 0);
    for next in Parser::new_from_str(text) {
        let (event, span) = next.map_err(|error| error.to_string())?;
        // The parser gives offsets for a text in memory.
        let range = span.byte_range().unwrap_or_default();
        let node = match event {
            Event::MappingStart(style, ..) => {
                open.push(Open::Map {
                    start: range.start,
                    flow: style == StructureStyle::Flow,
                    entries: Vec::new(),
                    key: None,
                });
                continue;
            }
            Event::SequenceStart(..) => {
                let (start, items) = (range.start, Vec::new());
                open.push(Open::List { start, items });
                continue;
            }
            Event::MappingEnd | Event::SequenceEnd => match open.pop() {
                Some(Open::Map {
                    start,
                    flow,
                    entries,
                    ..
                }) => Node {
                    range: start..range.end,
                    content: Content::Map { entries, flow },
                },
                Some(Open::List { start, items }) => Node {
                    range: start..range.end,
                    content: Content::List(items),
                },
                None => continue,
            },
            Event::Scalar(value, style, ..) => {
                let value = value.into_owned();
                let content = Content::Text { value, style };
                Node { range, content }
            }
            Event::Alias(_) => Node {
                range,
                content: Content::Alias,
            },
            _ => continue,
        };
        nodes += 1;
        if nodes > MOST {
            return Err(format!("the file has more than {MOST} values"));
        }
        match open.last_mut() {
            None => documents.push(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => match key.take() {
                None => *key = Some(node),
                Some(key) => entries.push((key, node)),
            },
        }
    }
    Ok(documents)
}

impl Node {
    /// Returns the text of a node. `None`: it is a collection or an alias.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text { value, .. } => Some(value),
            _ => None,
        }
    }

    /// Returns the entry of a map with this key.
    pub(super) fn entry(&self, key: &str) -> Option<(&Node, &Node)> {
        let Content::Map { entries, .. } = &self.content else {
            return None;
        };
        let entry = entries.iter().find(|(name, _)| name.text() == Some(key));
        entry.map(|(key, value)| (key, value))
    }

    /// Returns the items of a list; none if this is no list.
    pub(super) fn items(&self) -> &[Node] {
        match &self.content {
            Content::List(items) => items,
            _ => &[],
        }
    }
}

/// Returns the place of a value in the file, after its key if it has one. An error says why the
/// value can't be replaced.
pub(super) fn written(text: &str, key: Option<&Node>, node: &Node) -> Result<Written, String> {
    let Content::Text { style, .. } = &node.content else {
        return Err("is no text; name the place of a single value".to_owned());
    };
    let of_one_line = || {
        let part = text.get(node.range.clone());
        part.filter(|part| !part.contains('\n'))
            .ok_or_else(|| "goes over several lines; write it in one line".to_owned())
    };
    match style {
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => {
            let part = of_one_line()?;
            let inside = part.len() >= 2 && part.starts_with(['"', '\'']);
            inside
                .then(|| Written {
                    range: node.range.start + 1..node.range.end - 1,
                    quoting: Quoting::Quoted,
                })
                .ok_or_else(|| "can't be read; write it without a tag or an anchor".to_owned())
        }
        ScalarStyle::Plain if !node.range.is_empty() => {
            of_one_line()?;
            Ok(Written {
                range: node.range.clone(),
                quoting: Quoting::Plain,
            })
        }
        ScalarStyle::Plain => {
            let after_key = key.and_then(|key| {
                let rest = text.get(key.range.end..)?;
                let colon = rest.find(':')?;
                let between = rest[..colon].trim_matches(['"', '\'', ' ', '\t']);
                between.is_empty().then_some(key.range.end + colon + 1)
            });
            let at = after_key.ok_or_else(|| "is empty; write a first value there".to_owned())?;
            Ok(Written {
                range: at..at,
                quoting: Quoting::Absent,
            })
        }
        _ => Err("is a block of several lines; write it in one line".to_owned()),
    }
}

/// Returns the number of the line at a byte.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    text[..at.min(text.len())].matches('\n').count() + 1
}
