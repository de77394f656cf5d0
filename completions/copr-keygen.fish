# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_copr_keygen_global_optspecs
    string join \n state-dir= config= h/help V/version
end

function __fish_copr_keygen_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_copr_keygen_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_copr_keygen_using_subcommand
    set -l cmd (__fish_copr_keygen_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -s h -l help -d 'Print help'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -s V -l version -d 'Print version'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "serve" -d 'Answer HTTP requests for keys'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "signd" -d 'Sign for the clients of obs-signd, in its place'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "gpg" -d 'Run gpg on the key that a gpg command line is about; the `gpg:` program of obs-signd'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "check" -d 'Say whether this sign host is well, and what to do about what is not'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "make" -d 'Make a key, unless there is one of this name'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "list" -d 'List keys: a table on a terminal, else a JSON array'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "show" -d 'Show keys, with their certificates as gpg sees them'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "pubkey" -d 'Print the armored certificate of a key, with all its self-signatures'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "prolong" -d 'Give keys that expire soon a later expiry'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "fill-pool" -d 'Make secret keys in advance, so that requests need not wait for them'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "import" -d 'Take over the keys of a GnuPG home that many keys share, like the one of the old service'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "export" -d 'Write all keys into one ordinary GnuPG home with phrases, as the old service had it'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "backup" -d 'Write an encrypted archive of the keys, while everything goes on'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "restore" -d 'Put the keys of a decrypted archive back'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "token" -d 'Print a new token for a client, as a line for the file of tokens'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "remove" -d 'Take keys out of use; `undo` brings them back until `purge`'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "undo" -d 'Bring a removed key back'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "purge" -d 'Destroy removed keys, and what is kept of the old service, for good'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "seal" -d 'Encrypt all passphrases under the key in the credential passphrase-key'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "unseal" -d 'Take `seal` back: passphrases are in the clear again'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "follow" -d 'Take over each key that another host makes, changes or removes, and give the others the keys of this host'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "phrases" -d 'Write the passphrase of each key where obs-signd reads it, and remove passphrases that belong to no key'
complete -c copr-keygen -n "__fish_copr_keygen_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand serve" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand serve" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand serve" -l listen -d 'Where to listen when systemd passes no sockets: HOST:PORT or unix:PATH; may be repeated [default: 127.0.0.1:5003]' -r
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand signd" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand signd" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand signd" -l listen -d 'Where to listen when systemd passes no sockets: HOST:PORT or unix:PATH; may be repeated [default: 127.0.0.1:5167]' -r
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand signd" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand gpg" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand gpg" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand gpg" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand check" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand check" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand check" -l sign-conf -d 'The configuration of obs-signd [default: /etc/sign.conf]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand check" -l repair -d 'Mend what can be mended: owners and modes, links of obs-signd, gpg-agent.conf, key.json'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand check" -l deep -d 'Have gpg look at every certificate and make a signature with every key, on all cores'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand check" -l quiet -d 'Print only what is wrong: nothing when all is well'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand check" -l json -d 'Print a JSON array, one object a finding'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand check" -l no-units -d 'Leave systemd out, on a host that starts copr-keygen and obs-signd in another way'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand make" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand make" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand make" -l real -d 'The name in the user ID' -r
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand make" -l comment -d 'The comment in the user ID' -r
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand make" -l length -d '2048, 3072 or 4096 [default: the setting key_length]' -r
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand make" -l expire -d 'Days after which the key expires, or a span like 5y; 0 is never [default: the setting expire]' -r
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand make" -l json -d 'Print a JSON object with the key'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand make" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand list" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand list" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand list" -l expires-before -d 'Only keys that expire before then or have expired: a date, a time, @ and a Unix time, or a span from now like 90d' -r
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand list" -l changed-since -d 'Only keys whose certificate changed then or later: a date, a time, @ and a Unix time, or a span until now like 2d or 12h' -r
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand list" -l sort -d 'Order of the keys; the first to expire, the oldest and the longest unchanged come first' -r -f -a "name\t'By name'
expires\t'By expiry; keys that never expire come last'
created\t'By the time the key was made'
changed\t'By the time the certificate became what it is'"
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand list" -l names -d 'Print names only, one a line'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand list" -l json -d 'Print JSON on a terminal too'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand list" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand show" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand show" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand show" -l json -d 'Print JSON on a terminal too'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand show" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand pubkey" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand pubkey" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand pubkey" -l json -d 'Print a JSON object that holds the certificate'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand pubkey" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand prolong" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand prolong" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand prolong" -l within -d 'Keys that expire within this time are prolonged' -r
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand prolong" -l by -d 'The new expiry, counted from now' -r
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand prolong" -l expired -d 'Prolong keys that have expired already, too'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand prolong" -l trust-clock -d 'Believe a clock that is behind a key, or years after the last sign of life in the state'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand prolong" -l dry-run -d 'Say what would be done, and change nothing'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand prolong" -l json -d 'Print a JSON object with what was done'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand prolong" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand fill-pool" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand fill-pool" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand fill-pool" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand import" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand import" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand import" -l from -d 'The GnuPG home that holds the keys; only read [default: the old service\'s, in the state directory]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand import" -l phrases -d 'The directory of obs-signd\'s phrase files, for keys that are protected' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand import" -l protect -d 'Protect each secret key with a fresh passphrase' -r
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand import" -l leave-out -d 'Without --from: go on without the keys that cannot be taken over; they stay in trash/ until `purge`'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand import" -l dry-run -d 'Say what would be done, and change nothing'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand import" -l json -d 'Print a JSON object with what was done'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand import" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand export" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand export" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand export" -l to -d 'A directory that is empty or does not exist; gets gnupg/ and phrases/' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand export" -l json -d 'Print a JSON object with what was done'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand backup" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand backup" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand backup" -l to -d 'A file that does not exist; a directory, for a file in it that is named after the time; or - for stdout' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand backup" -l recipient -d 'File with an OpenPGP certificate to which the archive is encrypted; may be repeated' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand backup" -l since -d 'Only keys whose home changed then or later: a time, or a span until now like 2d or 12h' -r
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand backup" -l json -d 'Print a JSON object with what was done; not with --to -'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand backup" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand restore" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand restore" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand restore" -l from -d 'A decrypted archive, or - for stdin: gpg --decrypt FILE | copr-keygen restore --from -' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand restore" -l json -d 'Print a JSON object with what was done'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand restore" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand token" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand token" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand token" -l scopes -d 'What the token allows: generate (POST /gen_key), read (GET /keys and /metrics), or both' -r
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand token" -l pattern -d 'Shell pattern of the identities it is good for, like \'*#*@copr.example.org\'; all without it' -r
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand token" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand remove" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand remove" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand remove" -l yes -d 'Do not ask'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand remove" -l json -d 'Print a JSON object with what was done'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand remove" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand undo" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand undo" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand undo" -l json -d 'Print a JSON object with what was done'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand undo" -s h -l help -d 'Print help'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand purge" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand purge" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand purge" -l older-than -d 'Only what came to the trash longer ago than this, like 30d or 12h; 0d for all' -r
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand purge" -l old-service -d 'Only the directories of the old service that `import` has put there'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand purge" -l yes -d 'Do not ask'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand purge" -l json -d 'Print a JSON object with what was done'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand purge" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand seal" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand seal" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand seal" -l dry-run -d 'Say what would be done, and change nothing'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand seal" -l json -d 'Print a JSON object with what was done'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand seal" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand unseal" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand unseal" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand unseal" -l dry-run -d 'Say what would be done, and change nothing'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand unseal" -l json -d 'Print a JSON object with what was done'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand unseal" -s h -l help -d 'Print help'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand follow" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand follow" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand follow" -l once -d 'Take over the keys that are missing here, then end; the exit status is 1 when one could not be taken over'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand follow" -l seed -d 'Put each key that only this host has into etcd, take over the keys that are missing here, then end'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand follow" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand phrases" -l state-dir -d 'Directory that holds the keys and everything derived from them [default: /var/lib/copr-keygen]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand phrases" -l config -d 'Configuration file [default: /etc/copr-keygen/config.toml, if it exists]' -r -F
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand phrases" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "serve" -d 'Answer HTTP requests for keys'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "signd" -d 'Sign for the clients of obs-signd, in its place'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "gpg" -d 'Run gpg on the key that a gpg command line is about; the `gpg:` program of obs-signd'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "check" -d 'Say whether this sign host is well, and what to do about what is not'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "make" -d 'Make a key, unless there is one of this name'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "list" -d 'List keys: a table on a terminal, else a JSON array'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "show" -d 'Show keys, with their certificates as gpg sees them'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "pubkey" -d 'Print the armored certificate of a key, with all its self-signatures'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "prolong" -d 'Give keys that expire soon a later expiry'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "fill-pool" -d 'Make secret keys in advance, so that requests need not wait for them'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "import" -d 'Take over the keys of a GnuPG home that many keys share, like the one of the old service'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "export" -d 'Write all keys into one ordinary GnuPG home with phrases, as the old service had it'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "backup" -d 'Write an encrypted archive of the keys, while everything goes on'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "restore" -d 'Put the keys of a decrypted archive back'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "token" -d 'Print a new token for a client, as a line for the file of tokens'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "remove" -d 'Take keys out of use; `undo` brings them back until `purge`'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "undo" -d 'Bring a removed key back'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "purge" -d 'Destroy removed keys, and what is kept of the old service, for good'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "seal" -d 'Encrypt all passphrases under the key in the credential passphrase-key'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "unseal" -d 'Take `seal` back: passphrases are in the clear again'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "follow" -d 'Take over each key that another host makes, changes or removes, and give the others the keys of this host'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "phrases" -d 'Write the passphrase of each key where obs-signd reads it, and remove passphrases that belong to no key'
complete -c copr-keygen -n "__fish_copr_keygen_using_subcommand help; and not __fish_seen_subcommand_from serve signd gpg check make list show pubkey prolong fill-pool import export backup restore token remove undo purge seal unseal follow phrases help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
