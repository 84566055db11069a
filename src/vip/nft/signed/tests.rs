use super::*;

const BODY: &str = "table inet t {\nset s { type mark; }\nchain a {\nmeta mark @s drop\ngoto b\n}\n\
                    chain b { type filter hook output priority raw; policy accept;\n}\nchain c {\ndrop\n}\n}\n";

fn rules(signed: &Signed, chains: &[&str]) -> Vec<Rule> {
    let rule = |chain: &&str| Rule { chain: (*chain).to_owned(), comment: signed.signature.clone(), ..Rule::default() };
    chains.iter().map(rule).collect()
}

#[test]
fn rules_bear_the_signature_and_nothing_else_does() {
    let signed = Signed::new(BODY);
    let comment = format!(" comment \"{}\"", signed.signature);
    assert_eq!(signed.text().replace(&comment, ""), BODY);
    let with: Vec<&str> = signed.text().lines().filter_map(|line| line.strip_suffix(&comment)).collect();
    assert_eq!(with, ["meta mark @s drop", "goto b", "drop"]);
    assert_eq!(signed.signature.len(), 2 * BYTES);
}

#[test]
fn only_all_rules_of_the_same_text_are_in_force() {
    let signed = Signed::new(BODY);
    let whole = rules(&signed, &["a", "a", "c"]);
    assert!(signed.is_in_force(&whole));
    for other in
        [&[][..], &["a", "a"], &["a", "c"], &["a", "a", "c", "c"], &["a", "a", "c", "d"], &["a", "a", "b", "c"]]
    {
        assert!(!signed.is_in_force(&rules(&signed, other)), "{other:?}");
    }
    // Another text, or another program's rule.
    assert!(!Signed::new(&BODY.replace("goto b", "goto c")).is_in_force(&whole));
    let mut changed = whole;
    changed[1].comment.clear();
    assert!(!signed.is_in_force(&changed));
}
