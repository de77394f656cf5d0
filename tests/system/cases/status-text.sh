# systemctl status tells what the service has done
expect_request 201 POST /gen_key "$(key_request status)"

# status_line: prints the status text. It may be updated a moment after the answer.
status_line() {
    in_container systemctl status "$service" | sed -n 's/^ *Status: //p'
}
tells_of_one_key() {
    status_line | grep -q 'keys made: 1,'
}
wait_for 5 tells_of_one_key || fail "Status: $(status_line)"
note "Status: $(status_line)"
