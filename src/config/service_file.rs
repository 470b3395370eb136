//! libpq's connection service file: sections `[service]` of lines `parameter=value`
//! (<https://www.postgresql.org/docs/current/libpq-pgservice.html>).

use std::collections::BTreeMap;

/// The parameters of one service; `None` if the file has no such service. As in libpq, the first section of
/// that name counts, and in it the first value of a parameter.
///
/// # Errors
/// What is wrong in the section, with the number of the line.
pub(super) fn parameters_of(
    text: &str,
    service: &str,
) -> Result<Option<BTreeMap<String, String>>, String> {
    let lines = text
        .lines()
        .enumerate()
        .map(|(n, line)| (n + 1, line.trim()));
    let mut lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let header = format!("[{service}]");
    if !lines.any(|(_, line)| line == header) {
        return Ok(None);
    }
    let mut found = BTreeMap::new();
    for (n, line) in lines.take_while(|(_, line)| !line.starts_with('[')) {
        if line.starts_with("ldap") {
            return Err(format!("line {n}: LDAP is not supported"));
        }
        let Some((parameter, value)) = line.split_once('=') else {
            return Err(format!("line {n}: must be parameter=value"));
        };
        let parameter = parameter.trim().to_owned();
        found
            .entry(parameter)
            .or_insert_with(|| value.trim().to_owned());
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_section_of_the_name_counts() {
        let text = "# services\n[other]\nhost=other\nnonsense\n\n[app]\nhost=db\nport = 5433\nhost=again\n\
                    password=a=b\n[app]\nuser=late\n";
        let found = parameters_of(text, "app").unwrap().unwrap();
        let expected = [("host", "db"), ("password", "a=b"), ("port", "5433")];
        let expected = expected.map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(found, BTreeMap::from(expected));
        assert_eq!(parameters_of(text, "ap"), Ok(None));
    }

    #[test]
    fn mistakes_name_their_line_and_no_value() {
        for (text, expected) in [
            ("[app]\nsecret\n", "line 2: must be parameter=value"),
            ("[app]\nldap://h/dc=x?y\n", "line 2: LDAP is not supported"),
        ] {
            assert_eq!(parameters_of(text, "app").unwrap_err(), expected);
        }
    }
}
