use std::path::Path;

use crate::config::Config;

#[test]
fn the_example_in_the_repository_is_good() {
    let text = include_str!("../../proxy.toml");
    let config = Config::parse(Path::new("proxy.toml"), text).unwrap();
    assert_eq!(config.sites.len(), 1);
}
