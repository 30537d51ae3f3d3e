pub(super) fn warnings(_: &crate::config::Config) -> Vec<String> {
    Vec::new()
}
