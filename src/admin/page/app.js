// Starts the page.
const tokenField = startSecretField($("token"), $("reveal"));

$("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.submitter;
  if (button?.ariaDisabled === "true") return;
  if (button) button.ariaDisabled = "true";
  await signIn();
  if (button) button.ariaDisabled = null;
});
$("logout").addEventListener("click", () => {
  signOut();
  $("token").focus();
});
// The skip link must not change the fragment, which names the view.
$("skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("content").focus();
});
addEventListener("hashchange", openView);
// The browser may keep the page for the Back button, but not the token.
addEventListener("pagehide", signOut);
startLanguage(translate);
startDialogs();
translate();
showSession();
$("token").focus();
