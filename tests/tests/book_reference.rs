//! The pages that are made from the code are what the code makes.

use adit_tests::book::{self, reference};

#[tokio::test]
async fn the_reference_is_what_the_code_makes() {
    let folder = book::folder().join("reference");
    let differences = reference::differences(&folder, false).await.unwrap();
    assert!(
        differences.is_empty(),
        "`cargo xtask docs` makes it anew:\n{}",
        differences.join("\n")
    );
}
