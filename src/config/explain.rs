pub(super) fn explain(config: &crate::config::Config) -> String {
    format!("{} sites\n", config.sites.len())
}
