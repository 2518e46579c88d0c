"""Images and annotations: reading, checking, splitting, transforming and loading them. Stands alone in the package.

`sources.open_data` turns a name, folder or file into a `splits.DataBundle`; `preprocessing` is the one definition of
what a network sees in evaluation; `loading` gives samples and batches whose order and randomness are pure functions of
(seed, epoch, index); `checks.check_data` names what is wrong with a data set, and `fix.mend` writes a mended copy of
its annotations. `formats` has one class per format of annotations.
"""
