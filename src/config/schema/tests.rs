use super::{Form, INSTANCE, Key, ROOT, distance};
use crate::config::Config;
use serde::Deserialize as _;

/// A document with every key of the schema, valid for serde.
fn whole(keys: &[Key], path: &str, out: &mut String) {
    for key in keys.iter().filter(|k| !matches!(k.form, Form::Table(_) | Form::Tables(_))) {
        let value = match key.form {
            Form::Text => "\"a\"",
            Form::Choice(all) => &format!("{:?}", all[0]),
            Form::Texts => "[\"a\"]",
            Form::Bool => "true",
            Form::Whole(..) => "7",
            Form::Ports => "[7]",
            Form::Number => "0.1",
            Form::Duration => "\"1s\"",
            Form::PortRange => "\"10-20\"",
            Form::Address => "\"192.0.2.1\"",
            Form::Nets => "[\"192.0.2.1/24\"]",
            Form::Socket => "\"192.0.2.1:5\"",
            Form::Addresses => "[\"192.0.2.1\"]",
            Form::Carriers => "[\"udp:192.0.2.1:5\"]",
            Form::Table(_) | Form::Tables(_) => unreachable!(),
        };
        out.push_str(&format!("{} = {value}\n", key.name));
    }
    for key in keys {
        let at = super::join(path, key.name);
        match key.form {
            Form::Table(inner) => {
                out.push_str(&format!("[{at}]\n"));
                whole(inner, &at, out);
            }
            Form::Tables(inner) => {
                out.push_str(&format!("[[{at}]]\n"));
                whole(inner, &at, out);
            }
            _ => {}
        }
    }
}

#[test]
fn every_key_of_the_schema_is_a_field_of_the_model() {
    let mut text = String::new();
    whole(ROOT, "", &mut text);
    let config: Config = toml::from_str(&text).unwrap();
    assert!(config.instances[0].checks[0].process.is_some());
}

/// The fields that serde knows: its error about an unknown field lists them.
fn fields_of(section: &str) -> Vec<String> {
    let mut text = String::new();
    whole(ROOT, "", &mut text);
    let many = matches!(section, "instance" | "instance.check");
    let header = if many { format!("[[{section}]]\n") } else { format!("[{section}]\n") };
    let text = match section {
        "" => format!("zzz = 1\n{text}"),
        _ => text.replacen(&header, &format!("{header}zzz = 1\n"), 1),
    };
    let message = toml::from_str::<Config>(&text).unwrap_err().message().to_owned();
    message.split('`').skip(3).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_field_of_the_model_is_a_key_of_the_schema() {
    fn each(keys: &[Key], path: &str) {
        let mut known: Vec<String> = keys.iter().map(|k| k.name.to_owned()).collect();
        let mut fields = fields_of(path);
        known.sort();
        fields.sort();
        assert_eq!(known, fields, "section {path:?}");
        for key in keys {
            if let Form::Table(inner) | Form::Tables(inner) = key.form {
                each(inner, &super::join(path, key.name));
            }
        }
    }
    each(ROOT, "");
}

#[test]
fn required_keys_are_those_that_serde_requires() {
    let mut text = String::new();
    whole(ROOT, "", &mut text);
    let document: toml::Table = toml::from_str(&text).unwrap();
    for key in INSTANCE {
        let mut without = document.clone();
        without["instance"][0].as_table_mut().unwrap().remove(key.name);
        assert_eq!(Config::deserialize(without).is_err(), key.required, "{}", key.name);
    }
}

#[test]
fn edit_distance_counts_inserted_deleted_and_replaced_letters() {
    assert_eq!(distance("hold", "hold"), 0);
    assert_eq!(distance("heartbeet", "heartbeat"), 1);
    assert_eq!(distance("prot", "port"), 2);
    assert_eq!(distance("", "abc"), 3);
}
