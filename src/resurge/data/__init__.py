"""Images and labels: reading, checking, splitting, transforming and feeding them. Stands alone in the package.

`sources.open_data` turns a name, folder or file into a `bundle.DataBundle`; `transforms.Preprocessing` is the one
definition of what a network sees in evaluation; `loading` feeds training in an order and with randomness that are pure
functions of (seed, epoch, index); `scene_checks.check_data` names what is wrong with a data set of any task, and
`scene_fix.mend` writes a mended copy of its annotations.
"""
