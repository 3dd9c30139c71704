//! What an edge costs in a month, by item.

use serde::{Deserialize, Serialize};

/// What a topology costs in a month of 730 hours, in US dollars without tax.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The items, in the order of the path of a call.
    pub items: Vec<CostItem>,
    /// With as few instances as there may be, without traffic, in cents.
    pub least_cents: u64,
    /// With as many instances as there may be, without traffic, in cents.
    pub most_cents: u64,
    /// Whose prices: the region's, or those of the region that stands in for it.
    pub prices_of: String,
    /// Day of the prices, YYYY-MM-DD.
    pub as_of: String,
    /// Where AWS publishes them.
    pub source: String,
}

/// One item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CostItem {
    /// What it is, such as `NAT gateway`.
    pub name: String,
    /// How it comes about: `2 × 730 h × $0.045`.
    pub figures: String,
    /// With as few instances as there may be, in cents.
    pub least_cents: u64,
    /// With as many, in cents.
    pub most_cents: u64,
}
