//! The regions that COS documents (436/6224). There may be more: one that is not here is a warning.

use super::file::Located;
use super::problem::{Mistake, nearest, printable};
use super::section::Section;

/// The names in use, and those that COS had before 2017.
pub const REGIONS: [&str; 30] = [
    "accelerate",
    "ap-bangkok",
    "ap-beijing",
    "ap-beijing-1",
    "ap-beijing-fsi",
    "ap-chengdu",
    "ap-chongqing",
    "ap-guangzhou",
    "ap-hongkong",
    "ap-jakarta",
    "ap-mumbai",
    "ap-nanjing",
    "ap-seoul",
    "ap-shanghai",
    "ap-shanghai-fsi",
    "ap-shenzhen-fsi",
    "ap-singapore",
    "ap-tokyo",
    "cn-east",
    "cn-north",
    "cn-south",
    "cn-south-2",
    "cn-southwest",
    "eu-frankfurt",
    "eu-moscow",
    "na-ashburn",
    "na-siliconvalley",
    "na-toronto",
    "sa-saopaulo",
    "sg",
];

/// Warns of a region that COS does not document.
pub(super) fn warn_of_unknown(section: &Section<'_>, key: &str, region: &Located<String>) {
    if let Some(Mistake { message, fix }) = doubt(&region.value) {
        section.warning(&region.origin, format!("`{key}`: {message}"), fix);
    }
}

fn doubt(region: &str) -> Option<Mistake> {
    if REGIONS.contains(&region) {
        return None;
    }
    let region_of_city = REGIONS.iter().copied().find(|known| {
        known
            .split_once('-')
            .is_some_and(|(_, city)| city == region)
    });
    let fix = match region_of_city.or_else(|| nearest(region, REGIONS)) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => "write the region that the COS console shows for the bucket, such as \"ap-guangzhou\"; ignore this if the region is new".to_owned(),
    };
    let message = format!("`{}` is not a region that COS documents", printable(region));
    Some(Mistake::new(message, fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_region_of_a_city_or_a_misspelling() {
        for (region, fix) in [
            ("guangzhou", "did you mean \"ap-guangzhou\"?"),
            ("frankfurt", "did you mean \"eu-frankfurt\"?"),
            ("ap-guangzou", "did you mean \"ap-guangzhou\"?"),
            ("us-east-1", "the COS console"),
            ("ap-new-city", "ignore this if the region is new"),
        ] {
            let doubt = doubt(region).unwrap();
            assert!(doubt.fix.contains(fix), "{region}: {}", doubt.fix);
        }
    }

    #[test]
    fn knows_the_documented_regions() {
        assert!(REGIONS.is_sorted());
        assert_eq!(doubt("ap-guangzhou"), None);
        assert_eq!(doubt("na-siliconvalley"), None);
    }
}
