use std::path::Path;

use proptest::prelude::*;

use crate::config::Config;

const MAXIMAL: &str = include_str!("tests/maximal.toml");

fn problems(text: &str) -> String {
    match Config::parse(Path::new("proxy.toml"), text) {
        Ok(_) => String::new(),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn the_example_in_the_repository_is_good() {
    let text = include_str!("../../proxy.toml");
    let config = Config::parse(Path::new("proxy.toml"), text).unwrap();
    assert_eq!(config.sites.len(), 1);
}

#[test]
fn a_location_that_means_the_query_but_cannot_see_it_is_warned_of() {
    let with = |glob: &str| {
        let text =
            include_str!("../../proxy.toml").replace("location_not = \"/login*\"", &format!("location = {glob:?}"));
        Config::parse(Path::new("proxy.toml"), &text).unwrap().warnings().join("\n")
    };
    assert!(with("*failed=1").contains("write the ? of the query, as in \"*?failed=1\""));
    assert!(!with("*?failed=1").contains("query"));
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "\\PC*") {
        let _ = problems(&text);
    }

    #[test]
    fn a_file_cut_off_anywhere_is_read_without_panic(at in 0..MAXIMAL.len()) {
        let _ = problems(&MAXIMAL[..at]);
    }

    #[test]
    fn any_value_in_place_of_another_is_read_without_panic(line in 0..200_usize, value in "[a-z0-9\"\\[\\]{}=:/*.é-]{0,20}") {
        let replace = |(at, text): (usize, &str)| match text.split_once('=') {
            Some((key, _)) if at == line => format!("{key}= {value}"),
            _ => text.to_owned(),
        };
        let lines: Vec<String> = MAXIMAL.lines().enumerate().map(replace).collect();
        let _ = problems(&lines.join("\n"));
    }
}
