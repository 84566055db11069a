use super::*;

#[test]
fn gaps_are_words_in_json_and_a_word_of_a_later_version_still_counts() {
    let gaps = Gaps::default().with(Gap::RouteSet).with(Gap::LocalCseq);
    let text = serde_json::to_string(&gaps).unwrap();
    assert_eq!(text, r#"["local-cseq","route-set"]"#);
    assert_eq!(serde_json::from_str::<Gaps>(&text).unwrap(), gaps);
    let later: Gaps = serde_json::from_str(r#"["moon-phase"]"#).unwrap();
    assert_eq!(later.iter().collect::<Vec<_>>(), [Gap::Other]);
    assert!(gaps.without(Gap::RouteSet).without(Gap::LocalCseq).is_empty());
}
