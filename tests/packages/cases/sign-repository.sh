# the service makes a key, and signs packages and the metadata of their repository with it
# /srv/repository in the container has the packages. The signed repository goes to $COPR_KEYGEN_REPOSITORY on this
# host.
name=$(name_email packages)
in_container systemctl --quiet enable --now "$socket" "$signer_socket" 2>&1
expect_request 201 POST /gen_key "$(key_request packages)"
request GET "/keys/user%23packages%40copr.example.org/pubkey"
expect "certificate" 200 "$status"
in_container tee /srv/repository/RPM-GPG-KEY >/dev/null <<<"$body"

# rpmsign calls its gpg by that name and does not pass a passphrase. gpg-copr runs as the owner of the keys in any
# case.
in_container tee /usr/local/bin/gpg-of-rpmsign >/dev/null <<END
#!/bin/sh
exec gpg-copr --pinentry-mode=loopback --passphrase-fd=3 "\$@" 3<'$state/phrases/$name'
END
in_container chmod 0755 /usr/local/bin/gpg-of-rpmsign
mapfile -t packages < <(in_container find /srv/repository -name '*.rpm')
in_container chown -R copr-signer: /srv/repository
as_signer rpmsign --define '__gpg /usr/local/bin/gpg-of-rpmsign' --define "_gpg_name $name" --addsign "${packages[@]}"
in_container createrepo_c --quiet /srv/repository
sign_client 127.0.0.1:5167 sign "$name" /srv/repository/repodata/repomd.xml >"$container_dir/repomd"
in_container tee /srv/repository/repodata/repomd.xml.asc <"$container_dir/repomd" >/dev/null
in_container tar -c -C /srv/repository . | tar -x -C "$COPR_KEYGEN_REPOSITORY"
