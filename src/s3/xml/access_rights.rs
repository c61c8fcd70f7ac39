//! Access rights (ACLs). Accounts of AWS and of Tencent are not the same, so a client sees its own name for the
//! owner, and can give rights to everybody and to nobody else.

use super::document::{Document, Writer, malformed, once};
use super::requests::unknown;
use super::{Vocabulary, write_owner};
use crate::error::{Code, S3Error};
use crate::s3::Configuration;

/// Groups of S3's, and of COS's: everybody, and everybody with an account.
const GROUPS: [(Grantee, &str, &str); 2] = [
    (
        Grantee::Everybody,
        "http://acs.amazonaws.com/groups/global/AllUsers",
        "http://cam.qcloud.com/groups/global/AllUsers",
    ),
    (
        Grantee::AnyAccount,
        "http://acs.amazonaws.com/groups/global/AuthenticatedUsers",
        "http://cam.qcloud.com/groups/global/AuthenticatedUsers",
    ),
];
const PERMISSIONS: [&str; 5] = ["FULL_CONTROL", "READ", "READ_ACP", "WRITE", "WRITE_ACP"];
/// What a client is shown of an account of Tencent's that is not the owner.
const ANOTHER: &str = "another-account";

/// Who has what rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessRights(Vec<(Grantee, &'static str)>);

/// Who has a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grantee {
    AnotherAccount,
    AnyAccount,
    Everybody,
    Owner,
}

/// Whom a `Grantee` names.
#[derive(Debug, Default)]
struct NamedGrantee {
    id: Option<String>,
    group: Option<String>,
}

impl AccessRights {
    /// Reads what a client sends, whose name is `owner`.
    pub(crate) fn of_client(body: &[u8], owner: &str) -> Result<Self, S3Error> {
        let (named, grants) = read(body)?;
        if named.is_some_and(|named| named != owner) {
            let text = format!("The owner is {owner} and cannot be changed.");
            return Err(S3Error::new(Code::AccessDenied, text));
        }
        let grants = grants.into_iter().map(|(grantee, permission)| {
            match grantee.is(owner) {
                Some(Grantee::AnotherAccount) | None => Err(S3Error::new(
                    Code::NotImplemented,
                    "The accounts of Tencent COS are not those of S3. Give rights to the owner and to the group AllUsers alone.",
                )),
                Some(grantee) => Ok((grantee, permission)),
            }
        });
        Ok(Self(grants.collect::<Result<_, S3Error>>()?))
    }

    /// Reads what COS reports.
    pub(crate) fn of_cos(body: &[u8]) -> Result<Self, S3Error> {
        let (owner, grants) = read(body)?;
        let owner = owner.ok_or_else(|| malformed("it has no Owner"))?;
        let grants = grants.into_iter().map(|(grantee, permission)| {
            let grantee = grantee.is(&owner);
            let grantee = grantee.ok_or_else(|| malformed("a Grantee names nobody"))?;
            Ok((grantee, permission))
        });
        Ok(Self(grants.collect::<Result<_, S3Error>>()?))
    }

    /// COS's word for these rights, which says no account (436/30752).
    pub(crate) fn canned(&self) -> Result<&'static str, S3Error> {
        let (mut is_owners, mut reads, mut writes) = (false, false, false);
        for grant in &self.0 {
            match grant {
                (Grantee::Owner, "FULL_CONTROL") => is_owners = true,
                (Grantee::Everybody, "READ") => reads = true,
                (Grantee::Everybody, "WRITE") => writes = true,
                _ => return Err(not_canned()),
            }
        }
        match (is_owners, reads, writes) {
            (true, false, false) => Ok("private"),
            (true, true, false) => Ok("public-read"),
            (true, true, true) => Ok("public-read-write"),
            _ => Err(not_canned()),
        }
    }

    /// The document for a client whose name is `owner`.
    pub(crate) fn to_xml(&self, owner: &str, whose: Vocabulary) -> String {
        const ROOT: &str = "AccessControlPolicy";
        let mut writer = match whose {
            Vocabulary::Cos => Writer::with_bare_root(ROOT),
            Vocabulary::S3 => Writer::with_root(ROOT),
        };
        write_owner(&mut writer, owner);
        writer.open("AccessControlList");
        for (grantee, permission) in &self.0 {
            writer.open("Grant");
            grantee.write(&mut writer, owner, whose);
            writer.element("Permission", permission);
            writer.close("Grant");
        }
        writer.close("AccessControlList");
        writer.finish(ROOT)
    }

    /// The owner has all rights, and nobody else has any.
    pub(crate) fn owners() -> Self {
        Self(vec![(Grantee::Owner, "FULL_CONTROL")])
    }
}

impl Grantee {
    fn write(self, writer: &mut Writer, owner: &str, whose: Vocabulary) {
        let group = GROUPS.iter().find(|(grantee, ..)| *grantee == self);
        if let Some((_, s3, cos)) = group {
            writer.raw("<Grantee xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:type=\"Group\">");
            let uri = if whose == Vocabulary::S3 { s3 } else { cos };
            writer.element("URI", uri);
        } else {
            let id = if self == Self::Owner { owner } else { ANOTHER };
            writer.raw("<Grantee xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:type=\"CanonicalUser\">");
            writer.element("ID", id);
            writer.element("DisplayName", id);
        }
        writer.close("Grantee");
    }
}

impl NamedGrantee {
    /// Who it is, where the owner is called `owner`; `None` if nobody that is known.
    fn is(&self, owner: &str) -> Option<Grantee> {
        match (&self.id, &self.group) {
            (Some(id), None) if id == owner => Some(Grantee::Owner),
            (Some(_), None) => Some(Grantee::AnotherAccount),
            (None, Some(uri)) => {
                let mut groups = GROUPS.iter();
                let group = groups.find(|(_, s3, cos)| uri == s3 || uri == cos);
                group.map(|(grantee, ..)| *grantee)
            }
            _ => None,
        }
    }
}

fn not_canned() -> S3Error {
    S3Error::new(
        Code::NotImplemented,
        "Tencent COS has no counterpart of these rights. Give the owner FULL_CONTROL, and the group AllUsers READ, READ and WRITE, or nothing.",
    )
}

/// The owner's ID, and who has what rights.
type ReadRights = (Option<String>, Vec<(NamedGrantee, &'static str)>);

fn read(body: &[u8]) -> Result<ReadRights, S3Error> {
    let limit = Configuration::Acl.max_bytes();
    let mut document = Document::open(body, limit, "AccessControlPolicy")?;
    let (mut owner, mut grants) = (None, None);
    while let Some(name) = document.child()? {
        match name.as_str() {
            "Owner" => once(&mut owner, "Owner", account(&mut document)?)?,
            "AccessControlList" => once(&mut grants, "AccessControlList", list(&mut document)?)?,
            _ => return Err(unknown(&name)),
        }
    }
    document.close()?;
    let grants = grants.ok_or_else(|| malformed("it has no AccessControlList"))?;
    Ok((owner.and_then(|owner| owner.id), grants))
}

fn list(document: &mut Document<'_>) -> Result<Vec<(NamedGrantee, &'static str)>, S3Error> {
    let mut grants = Vec::new();
    while let Some(name) = document.child()? {
        if name != "Grant" {
            return Err(unknown(&name));
        }
        let (mut grantee, mut permission) = (None, None);
        while let Some(name) = document.child()? {
            match name.as_str() {
                "Grantee" => once(&mut grantee, "Grantee", account(document)?)?,
                "Permission" => once(&mut permission, "Permission", document.text()?)?,
                _ => return Err(unknown(&name)),
            }
        }
        let permission = permission.unwrap_or_default();
        let known = PERMISSIONS
            .iter()
            .find(|known| **known == permission.trim());
        match (grantee, known) {
            (Some(grantee), Some(known)) => grants.push((grantee, *known)),
            _ => return Err(malformed("a Grant needs a Grantee and a Permission")),
        }
    }
    Ok(grants)
}

/// An owner or a grantee. Display names say nothing that an ID does not.
fn account(document: &mut Document<'_>) -> Result<NamedGrantee, S3Error> {
    let mut named = NamedGrantee::default();
    while let Some(name) = document.child()? {
        match name.as_str() {
            "ID" => once(&mut named.id, "ID", document.text()?.trim().to_owned())?,
            "URI" => once(&mut named.group, "URI", document.text()?.trim().to_owned())?,
            "DisplayName" | "EmailAddress" => document.skip()?,
            _ => return Err(unknown(&name)),
        }
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COS: &str = "<AccessControlPolicy><Owner><ID>qcs::cam::uin/1:uin/1</ID><DisplayName>boss</DisplayName></Owner>\
        <AccessControlList><Grant><Grantee xsi:type='CanonicalUser'><ID>qcs::cam::uin/1:uin/1</ID></Grantee>\
        <Permission>FULL_CONTROL</Permission></Grant><Grant><Grantee><ID>qcs::cam::uin/1:uin/2</ID></Grantee>\
        <Permission>WRITE_ACP</Permission></Grant><Grant><Grantee><URI>http://cam.qcloud.com/groups/global/AllUsers</URI>\
        </Grantee><Permission>READ</Permission></Grant></AccessControlList></AccessControlPolicy>";

    #[test]
    fn a_client_sees_its_own_name_and_no_account() {
        let rights = AccessRights::of_cos(COS.as_bytes()).unwrap();
        for whose in [Vocabulary::S3, Vocabulary::Cos] {
            let shown = rights.to_xml("acme", whose);
            for hidden in ["qcs", "uin", "boss"] {
                assert!(!shown.contains(hidden), "{shown}");
            }
            assert_eq!(shown.matches("<ID>acme</ID>").count(), 2);
            assert!(shown.contains("<ID>another-account</ID>"), "{shown}");
            let group = match whose {
                Vocabulary::S3 => "<URI>http://acs.amazonaws.com/groups/global/AllUsers</URI>",
                Vocabulary::Cos => "<URI>http://cam.qcloud.com/groups/global/AllUsers</URI>",
            };
            assert!(shown.contains(group), "{shown}");
            // Sent back, it would take the other account's right away.
            let again = AccessRights::of_client(shown.as_bytes(), "acme");
            assert_eq!(again.unwrap_err().code(), Code::NotImplemented);
        }
    }

    #[test]
    fn rights_that_no_word_of_cos_says_are_refused() {
        use Grantee::{AnyAccount, Everybody, Owner};
        let canned = |grants: &[(Grantee, &'static str)]| {
            AccessRights(grants.to_vec())
                .canned()
                .map_err(|error| error.code())
        };
        let own = (Owner, "FULL_CONTROL");
        assert_eq!(canned(&[own]), Ok("private"));
        assert_eq!(canned(&[(Everybody, "READ"), own]), Ok("public-read"));
        let both = [own, (Everybody, "WRITE"), (Everybody, "READ")];
        assert_eq!(canned(&both), Ok("public-read-write"));
        for grants in [
            &[][..],
            &[(Owner, "READ")],
            &[(Everybody, "READ")],
            &[own, (Everybody, "WRITE")],
            &[own, (Everybody, "FULL_CONTROL")],
            &[own, (AnyAccount, "READ")],
        ] {
            assert_eq!(canned(grants), Err(Code::NotImplemented), "{grants:?}");
        }
    }
}
