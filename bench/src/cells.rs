//! The capacity of several cells. Each cell has its own bus, indexer and database, and the
//! repositories that a hash assigns to it.
//!
//! A simulation, because a single machine can't run whole cells. It shows a limit that no tuning
//! changes: the busiest cell is full first.

use comfy_table::{Table, presets};
use tagtrail_proto::{Registry, Repository, partition_of};

/// Repositories with pushes.
const REPOSITORIES: u32 = 100_000;

/// Returns the share of the busiest cell, and the pushes per second of all cells when that cell is
/// full. A cell carries `one` pushes per second; the load of a repository is `rank^-power`.
fn carried(cells: u16, power: f64, one: f64) -> anyhow::Result<(f64, f64)> {
    let registry: Registry = "registry.example.com".parse()?;
    let mut loads = vec![0.0; usize::from(cells)];
    for rank in 1..=REPOSITORIES {
        let repository: Repository = format!("team-{}/app-{rank}", rank % 500).parse()?;
        if let Some(load) = loads.get_mut(usize::from(partition_of(&registry, &repository, cells)))
        {
            *load += f64::from(rank).powf(-power);
        }
    }
    let (all, busiest) = (
        loads.iter().sum::<f64>(),
        loads.iter().copied().fold(0.0, f64::max),
    );
    Ok((busiest / all, one * all / busiest))
}

/// Builds the table for 1, 4, 16 and 64 cells.
pub(crate) fn table(one: f64) -> anyhow::Result<Table> {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "cells",
        "load of repositories",
        "share of the busiest cell",
        "pushes/s before it is full",
        "of what as many cells could",
    ]);
    for (name, power) in [("all alike", 0.0), ("1/rank^0.8", 0.8), ("1/rank", 1.0)] {
        for cells in [1, 4, 16, 64] {
            let (share, rate) = carried(cells, power, one)?;
            table.add_row([
                cells.to_string(),
                name.to_owned(),
                format!("{:.1} %", share * 100.0),
                format!("{rate:.0}"),
                format!("{:.0} %", rate / one / f64::from(cells) * 100.0),
            ]);
        }
    }
    Ok(table)
}
