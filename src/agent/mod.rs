//! The one event loop that joins the rooms; the only place that knows them all.
