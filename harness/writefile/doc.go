// Package writefile is the one door for what netproof writes to a path that its user, or a folder of scenarios, names:
// reports, journals, tables, images, kubeconfigs.
//
// The folder may come from somebody who is not trusted, while netproof runs as root. So a name in it must lead nowhere
// else:
//
//   - The last part of a path is never a link. A link is refused, also one that leads nowhere: it is neither followed
//     nor replaced.
//   - No folder on the way is a link, except for links that lie directly in /, /home or /var. Systems have such links
//     (/var/run), and no checkout of a repository is one of these folders. A relative path begins at the working
//     folder, however that was reached.
//   - What exists is replaced only if it is a regular file of the user that netproof runs as, or of the owner of its
//     folder. The owner may replace it anyway: so a container that runs as root can write to a checkout of an ordinary
//     user. In a folder that everybody may write to, such as /tmp, only the first counts.
//   - A file is made new under a name that nobody can guess, in an open folder, and then renamed within that folder. A
//     rename replaces a name and follows nothing, so it does no harm if somebody changes the folder meanwhile. That is
//     why folders that others may write to are not refused: a project of a group, or a checkout that GitLab makes with
//     mode 0777.
//
// A path may also name what is not a file, for a person who types it: /dev/null and other character devices, a named
// pipe, and a descriptor of this process (/dev/stdout, /dev/stderr, /dev/fd/N), as a shell's >(...) gives. These are
// written to as they are. All but the descriptors, which are recognised by their names alone, must not be links either.
// Block devices and sockets are refused.
//
// This holds on Linux. place_other.go says what is weaker on other systems.
//
// An error that says no matches [ErrRefused], and names the path and the fix. [Check] gives it before there is anything
// to write.
package writefile
