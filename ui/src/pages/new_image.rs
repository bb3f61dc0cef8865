//! New images: pulled, uploaded, or from a URL.

use maud::{Markup, html};

use super::Frame;
use super::form::{Field, Refusal, whole};
use super::image::disk_field;
use crate::seen::Seen;

/// What was typed in one of the three forms. Never holds a password.
#[derive(Debug, Clone, Default)]
pub struct ImageForm {
    /// `pull`, `upload` or `url`.
    pub from: String,
    /// Name of the image.
    pub name: String,
    /// A Docker image name, or a URL.
    pub source: String,
    /// The user at a private registry or server.
    pub username: String,
    /// os/architecture of a container image.
    pub platform: String,
    /// A checksum to be met.
    pub checksum: String,
    /// The UUID of a disk.
    pub disk: String,
}

const CHECKSUM: &str =
    "sha512:…; empty: what comes is recorded and the image is marked as unverified";

/// The page.
pub fn new_image(
    frame: &Frame,
    seen: &Seen,
    form: &ImageForm,
    refused: Option<&Refusal>,
) -> Markup {
    let none = ImageForm::default();
    let of = |from: &str| match form.from == from {
        true => (form, refused),
        false => (&none, None),
    };
    let (pull, pull_refused) = of("pull");
    let (upload, upload_refused) = of("upload");
    let (url, url_refused) = of("url");
    let body = html! {
        section aria-labelledby="pull" {
            h2 #pull { "Pull" }
            form method="post" action="/images" {
                input type="hidden" name="from" value="pull";
                (whole(pull_refused))
                (Field::new("pull", "source", "Base Image").help("A Docker image name.").refused(pull_refused).text(&pull.source))
                (Field::new("pull", "name", "Name").help("Empty: the name follows from the reference.").refused(pull_refused).text(&pull.name))
                (Field::new("pull", "platform", "Platform").help("os/architecture, for an image index; empty: that of the node").refused(pull_refused).text(&pull.platform))
                (credentials("pull", "Private registry", pull, pull_refused))
                (Field::new("pull", "checksum", "Checksum").help(CHECKSUM).refused(pull_refused).text(&pull.checksum))
                (disk_field("pull", pull_refused, seen, &pull.disk))
                button type="submit" { "Pull" }
            }
        }
        section aria-labelledby="upload" {
            h2 #upload { "Upload" }
            form #upload-form method="post" action="/uploads" enctype="multipart/form-data" {
                (whole(upload_refused))
                (Field::new("upload", "name", "Name").refused(upload_refused).text(&upload.name))
                (Field::new("upload", "checksum", "Checksum").help(CHECKSUM).refused(upload_refused).text(&upload.checksum))
                (disk_field("upload", upload_refused, seen, &upload.disk))
                // The last one: what comes before it must be known when its bytes begin.
                div.field {
                    label for="upload-file" { "File" }
                    p.help #upload-file-help { "A raw or qcow2 disk image. An upload that breaks goes on when the same file is chosen again." }
                    input #upload-file name="file" type="file" required aria-describedby="upload-file-help";
                }
                button type="submit" { "Upload" }
                div #upload-progress hidden {
                    progress #upload-bar max="100" value="0" aria-label="Progress of the upload" {}
                    span #upload-state role="status" {}
                }
            }
        }
        section aria-labelledby="from-url" {
            h2 #from-url { "From URL" }
            form method="post" action="/images" {
                input type="hidden" name="from" value="url";
                (whole(url_refused))
                (Field::new("url", "source", "URL").help("http or https, of a raw or qcow2 disk image; gzip, xz and zstd are unpacked.").refused(url_refused).text(&url.source))
                (Field::new("url", "name", "Name").help("Empty: the name follows from the URL.").refused(url_refused).text(&url.name))
                (credentials("url", "Private server", url, url_refused))
                (Field::new("url", "checksum", "Checksum").help(CHECKSUM).refused(url_refused).text(&url.checksum))
                (disk_field("url", url_refused, seen, &url.disk))
                button type="submit" { "Download to the disk" }
            }
        }
    };
    frame.page("/images", "New image", &body)
}

fn credentials(prefix: &str, title: &str, form: &ImageForm, refused: Option<&Refusal>) -> Markup {
    html! {
        details {
            summary { (title) }
            (Field::new(prefix, "username", "User").refused(refused).text(&form.username))
            (Field::new(prefix, "password", "Password").help("For this request only: never kept, never shown again.")
                .refused(refused).input("password", "", 1024))
        }
    }
}
