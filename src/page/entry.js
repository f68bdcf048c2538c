// The form in which a secret is entered.

// A field for a secret, with a button that shows and hides it.
function startSecretField(field, button) {
  const show = () => {
    const concealed = field.type === "password";
    button.textContent = text(concealed ? "reveal" : "conceal");
    button.ariaLabel = text(concealed ? "revealSecret" : "concealSecret");
  };
  button.addEventListener("click", () => {
    field.type = field.type === "password" ? "text" : "password";
    show();
  });
  const conceal = () => {
    field.type = "password";
    show();
  };
  return { show, conceal };
}

// The credential in a text that was pasted, perhaps with the whole header, or a problem.
function pastedCredential(pasted, missing, invalid) {
  const credential = pasted.trim().replace(/^(authorization:\s*)?bearer\s+/i, "");
  if (!credential) throw new Problem(missing);
  if (!/^[\x21-\x7e]+$/.test(credential)) throw new Problem(invalid);
  return credential;
}
