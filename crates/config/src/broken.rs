//! Entries that can't be used, which stop no other entry.

use std::fmt;

use crate::ConfigError;

/// A table of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// A whole file of the folder of triggers.
    File,
    /// `[[source]]`.
    Source,
    /// `[[registry]]`.
    Registry,
    /// `[[trigger]]`.
    Trigger,
    /// `[[token]]`.
    Token,
    /// `[[notify]]`.
    Notify,
    /// `[[cluster]]`.
    Cluster,
    /// `[[secret]]`.
    Secret,
}

impl Table {
    /// Returns the key of the table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Table::File => "file",
            Table::Source => "source",
            Table::Registry => "registry",
            Table::Trigger => "trigger",
            Table::Token => "token",
            Table::Notify => "notify",
            Table::Cluster => "cluster",
            Table::Secret => "secret",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An entry that can't be used as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The table of the entry.
    pub table: Table,
    /// The name of the entry, if it can be read.
    pub name: Option<String>,
    /// Whether another entry has the name: that one is in force, and this one is not.
    pub second: bool,
    /// The mistake, with place and cure.
    pub problem: ConfigError,
}

impl Broken {
    /// Returns the entry with a mistake.
    #[must_use]
    pub fn new(table: Table, name: impl Into<String>, problem: ConfigError) -> Broken {
        Broken {
            table,
            name: Some(name.into()),
            second: false,
            problem,
        }
    }

    /// Returns a whole file with a mistake.
    pub(crate) fn of_file(problem: ConfigError) -> Broken {
        Broken {
            table: Table::File,
            name: None,
            second: false,
            problem,
        }
    }

    /// Returns whether this is the entry of a table with this name, and not one of several.
    #[must_use]
    pub fn is(&self, table: Table, name: &str) -> bool {
        self.table == table && !self.second && self.name.as_deref() == Some(name)
    }
}

/// The outcome of checking a part of the files.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    /// A line about each good entry, and about each warning.
    pub lines: Vec<String>,
    /// The mistakes.
    pub mistakes: Vec<ConfigError>,
}

impl Checked {
    /// Adds the outcome for another part.
    pub fn add(&mut self, other: Checked) {
        self.lines.extend(other.lines);
        self.mistakes.extend(other.mistakes);
    }
}
